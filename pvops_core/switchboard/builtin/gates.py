"""Gives every implementation an address in guest text."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from pvops_core.errors import SwitchError
from pvops_core.switchboard.implementation import Form, Implementation
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from pvops_core.machine import Beside, Gates, Vcpu

BUG_GATE = 0


def _bug(vcpu: Vcpu) -> None:
    """A patched site called an empty slot: a bug of the guest, which ends there as a kernel would."""
    # The return address names the caller; the call itself is before it.
    caller = vcpu.word(vcpu.rsp)
    detail = f"vcpu {vcpu.index} called an op that its platform left empty (paravirt_BUG), from before {caller:#x}"
    vcpu.machine.stop("crash", detail)


class GatesState(NamedTuple):
    """Gates that are free, in order; the implementations of the others by name; which of the free were used before."""

    free: tuple[int, ...]
    owners: dict[int, str]
    closed: tuple[int, ...]


class GateAllocator:
    """The gates of one machine, handed out one to an implementation.

    Args:
        gates: the machine's gates, mapped.
        count: how many there are.
    """

    def __init__(self, gates: Gates, count: int) -> None:
        self._gates = gates
        # First in, first out: a vCPU may yet stand at a gate that was closed, which must go on to work.
        self._free = deque(range(BUG_GATE + 1, count))
        self._closed: set[int] = set()
        self._index: dict[Implementation, int] = {}
        gates.bind(BUG_GATE, _bug)

    @property
    def nop_address(self) -> int:
        """Address of the ``ret`` that serves as ``_paravirt_nop``."""
        return self._gates.return_address

    def has(self, implementation: Implementation) -> bool:
        """Whether an implementation has a gate."""
        return implementation in self._index

    @property
    def bug_address(self) -> int:
        """Address of ``paravirt_BUG``: the first gate, which belongs to no implementation."""
        return self._gates.address(BUG_GATE)

    def open(
        self, implementation: Implementation, handler: Callable[[Vcpu], None], vacant: Callable[[int], bool]
    ) -> int:
        """Give an implementation a gate, once, and its address.

        Args:
            implementation: which.
            handler: what the gate calls.
            vacant: whether nobody stands at a gate that was another's before, given its address.

        Raises:
            SwitchError: no gate is left.
        """
        index = self._index.get(implementation)
        if index is None:
            index = self._index[implementation] = self._take(implementation, vacant)
            self._gates.bind(index, handler)
        return self._gates.address(index)

    def _take(self, implementation: Implementation, vacant: Callable[[int], bool]) -> int:
        for _ in range(len(self._free)):
            index = self._free.popleft()
            # A gate that was used before may have somebody in it who went to sleep there.
            if index not in self._closed or vacant(self._gates.address(index)):
                return index
            self._free.append(index)
        raise SwitchError("no gate is left in this guest", op=implementation.op, implementation=implementation.name)

    def close(self, implementation: Implementation) -> None:
        """Take a gate back from an implementation that is not in use, or no longer."""
        index = self._index.pop(implementation, None)
        if index is not None:
            self._free.append(index)
            self._closed.add(index)

    def save(self, beside: Beside[Implementation]) -> GatesState:
        """Which gates are whose, for a snapshot."""
        owners = {index: beside.name(owner, owner.name) for owner, index in self._index.items()}
        return GatesState(tuple(self._free), owners, tuple(sorted(self._closed)))

    def load(
        self,
        state: GatesState,
        beside: Beside[Implementation],
        handler: Callable[[Implementation], Callable[[Vcpu], None]],
    ) -> None:
        """Go back to a saved state; what the gates call is part of the machine's own, where they were open before."""
        free, owners, closed = state
        self._free, self._closed = deque(free), set(closed)
        self._index = {beside.thing(name): index for index, name in owners.items()}
        for implementation, index in self._index.items():
            if self._gates.address(index) not in self._gates.bound:
                self._gates.bind(index, handler(implementation))

    def address(self, implementation: Implementation) -> int:
        """What the slot of this implementation's op holds; 0 for an empty slot."""
        match implementation.form:
            case Form.FUNCTION:
                return self._gates.address(self._index[implementation])
            case Form.NOP:
                return self.nop_address
            case Form.EMPTY:
                return 0
            # A function of the guest's own needs no gate: the slot holds its address.
            case Form.GUEST:
                raise SwitchError(
                    "is a kernel's own function", op=implementation.op, implementation=implementation.name
                )

    def code(self) -> dict[int, bytes]:
        """What must stand in guest text for the gates to work, by address, no piece across a page."""
        base, text = self._gates.address(0), self._gates.text
        # A poke crosses no page border here, so that text that is not mapped as one piece is no matter.
        borders = [0, *range(PAGE - base % PAGE, len(text), PAGE), len(text)]
        return {base + start: text[start:end] for start, end in pairwise(borders)}
