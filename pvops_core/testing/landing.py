"""Ends a run where the code under test ends: at an undefined instruction, seen before the platform sees it."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from pvops_core.machine import Machine, Vcpu

UD2: Final = b"\x0f\x0b"
INVALID_OPCODE: Final = 6


class Landing:
    """A context in which the machine stops when it comes to an undefined instruction at an address.

    Everything else goes to the machine's platform as before.

    Args:
        machine: the machine.
        address: guest-virtual address of the instruction.
    """

    def __init__(self, machine: Machine, address: int) -> None:
        self._machine = machine
        self._address = address
        self._platform = machine.platform
        self.reached = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever the platform's attribute is
        return getattr(self._platform, name)

    def exception(self, vcpu: Vcpu, vector: int, error_code: int | None, address: int | None) -> None:
        """Stop at the address; hand on any other exception."""
        if vector == INVALID_OPCODE and vcpu.rip == self._address:
            self.reached = True
            self._machine.stop("landed")
        else:
            self._platform.exception(vcpu, vector, error_code, address)

    def __enter__(self) -> Self:
        self._machine.attach(self)  # its other methods are the platform's, by __getattr__
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._machine.attach(self._platform)
