"""Addresses in guest text that call Python: how the guest reaches the implementation of an op.

A gate is a jump to a shared ``ret`` behind the last gate. Executing the jump calls the bound handler once; then the
guest goes on at the ``ret`` and returns to its caller, without another callback, unless the handler moved RIP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pvops_core.errors import MachineError
from pvops_core.machine.handler import GateHandler
from pvops_core.machine.run.stateful import Beside

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine.cpu.vcpu import Vcpu

_JUMP = 5  # bytes of jmp rel32


class Interrupted(Protocol):
    """The run loop as gates know it."""

    interrupted: bool


class Gates:
    """The gates of one machine: one range of equal steps, followed by one byte for the ``ret``."""

    def __init__(self, loop: Interrupted, hook: Callable[[int, int], None]) -> None:
        self._loop = loop
        self._hook = hook
        self._base = 0
        self._stride = 0
        self._handlers: list[GateHandler | None] = []
        self.bound: dict[int, GateHandler] = {}  # by address
        self._beside = Beside[GateHandler]("a gate's")

    def map(self, base_va: int, count: int, stride: int = 8) -> None:
        """Hook ``count`` gates from ``base_va``; once in a machine's life.

        The caller writes the bytes (``code`` or ``text``) into guest text there. ``stride`` is at least 5 bytes.
        """
        if self._handlers:
            raise MachineError("gates are mapped already")
        if count < 1 or stride < _JUMP:
            raise MachineError(f"{count} gates of {stride} bytes cannot be mapped")
        self._base, self._stride = base_va, stride
        self._handlers = [None] * count
        self._hook(base_va, base_va + count * stride - 1)

    @property
    def mapped(self) -> bool:
        """Whether there are any."""
        return bool(self._handlers)

    def holds(self, address: int) -> bool:
        """Whether an address lies in one, or is that of the shared ``ret``."""
        return bool(self._handlers) and self._base <= address <= self.return_address

    def address(self, index: int) -> int:
        """Virtual address of a gate: what guest text calls."""
        self._check(index)
        return self._base + index * self._stride

    @property
    def return_address(self) -> int:
        """Virtual address of the shared ``ret``, which calls nothing: a function that does nothing."""
        return self._base + len(self._handlers) * self._stride

    @property
    def span(self) -> tuple[int, int]:
        """The first gate's address, and the shared ``ret``'s; two zeros without gates."""
        return (self._base, self.return_address) if self._handlers else (0, 0)

    def code(self, index: int) -> bytes:
        """Bytes of a gate, ``stride`` long."""
        self._check(index)
        # From the end of this jump to the shared return, behind the last gate.
        to_ret = (len(self._handlers) - index) * self._stride - _JUMP
        # Filled up with int3: who strays into the middle of a gate is noticed.
        return (b"\xe9" + to_ret.to_bytes(4, "little")).ljust(self._stride, b"\xcc")

    @property
    def text(self) -> bytes:
        """All gates and the shared ``ret``, to be written at the base."""
        return b"".join(map(self.code, range(len(self._handlers)))) + b"\xc3"

    def bind(self, index: int, handler: GateHandler) -> None:
        """Set what a gate calls from now on."""
        self._check(index)
        self._handlers[index] = handler
        self.bound[self.address(index)] = handler

    def call(self, vcpu: Vcpu, address: int) -> None:
        """A gate was reached."""
        handler = self.bound.get(address)
        if handler is None:
            # Sound text calls bound gates by their addresses only: whatever came here was led astray.
            astray = (address - self._base) % self._stride
            what = "the middle of a gate" if astray else "a gate to which no handler is bound"
            vcpu.machine.stop("crash", f"vcpu {vcpu.index} ran into {what} at {address:#x}")
            return
        handler(vcpu)
        if vcpu.rip_written or self._loop.interrupted:
            self.leave(vcpu, address)

    def leave(self, vcpu: Vcpu, address: int) -> None:
        """The engine leaves the block after a gate's handler: it must not begin again with the same call."""
        # The handler did not move it, so the engine would execute the jump, and call the handler, once more.
        if vcpu.rip == address:
            vcpu.rip = self.return_address

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self._handlers):
            raise MachineError(f"there is no gate {index}")

    def save(self) -> tuple[str | None, ...]:
        """State for a snapshot: the names of the handlers, which stay here."""
        return tuple(each if each is None else self._beside.name(each, "handler") for each in self._handlers)

    def load(self, state: tuple[str | None, ...]) -> None:
        """Go back to a saved state; a gate that was opened in another process is left to who binds it."""
        if state:
            self._handlers = [None if name is None else self._beside.find(name) for name in state]
            bound = enumerate(self._handlers)
            self.bound.clear()
            self.bound.update((self.address(index), handler) for index, handler in bound if handler is not None)
