"""The platform as the machine sees it: who answers when the guest traps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs

if TYPE_CHECKING:
    from pvops_core.machine.cpu.vcpu import Vcpu


Observer = Callable[["Vcpu", int, int | None, int | None], bool | None]
"""Told of an exception as :meth:`TrapHandler.exception` is; True if it has answered it, so that nobody else is to."""
GateHandler = Callable[["Vcpu"], None]
"""Called when the guest executes a gate; it leaves RIP alone, or moves it."""


@attrs.frozen
class ServedMsr:
    """A register that the processor does not have and a hypervisor offers.

    Attributes:
        read: gives its value, 64 bits, or raises #GP(0).
        write: takes one, or raises #GP(0).
    """

    read: Callable[[Vcpu], int]
    write: Callable[[Vcpu, int], None]


class TrapHandler(Protocol):
    """Answers the guest's traps.

    RIP and every other register are the guest's when a method is called; the guest goes on with what it leaves there.

    A GuestFault that leaves any method but ``exception`` is given to ``exception``.
    """

    @abstractmethod
    def exception(self, vcpu: Vcpu, vector: int, error_code: int | None, address: int | None) -> None:
        """The CPU raised an exception; RIP is at the instruction, or after it for a trap.

        Args:
            vcpu: the vCPU.
            vector: 0 to 31.
            error_code: as the processor gives it; None for vectors that have none.
            address: the linear address of a page fault (CR2), else None.
        """

    @abstractmethod
    def software_interrupt(self, vcpu: Vcpu, vector: int) -> None:
        """The guest executed int n, int3 or into; RIP is after it. The gate's DPL has not been checked."""

    @abstractmethod
    def syscall(self, vcpu: Vcpu) -> None:
        """The guest executed syscall; RIP is after it."""

    @abstractmethod
    def sysenter(self, vcpu: Vcpu) -> None:
        """The guest executed sysenter; RIP is after it."""

    @abstractmethod
    def cpuid(self, vcpu: Vcpu, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """The guest executed cpuid; gives EAX, EBX, ECX and EDX."""

    @abstractmethod
    def io_in(self, vcpu: Vcpu, port: int, size: int) -> int:
        """The guest read 1, 2 or 4 bytes from a port, and may."""

    @abstractmethod
    def io_out(self, vcpu: Vcpu, port: int, size: int, value: int) -> None:
        """The guest wrote 1, 2 or 4 bytes to a port, and may."""

    @abstractmethod
    def privileged(self, vcpu: Vcpu, name: str, *operands: int) -> int | None:
        """Python code asked for an instruction that the privilege level forbids: its result, or GuestFault.

        Args:
            vcpu: the vCPU.
            name: the method of ``vcpu.insn`` that it amounts to.
            *operands: that method's arguments.
        """

    @abstractmethod
    def halted(self, vcpu: Vcpu) -> None:
        """The guest executed hlt; RIP is after it. ``vcpu.halt()`` makes it wait."""

    @abstractmethod
    def before_entry(self, vcpu: Vcpu) -> None:
        """Before every time slice: deliver pending events here."""

    @abstractmethod
    def idle(self) -> bool:
        """Every vCPU is halted: move the clock to the next event and wake one; False if nothing will ever come."""


@runtime_checkable
class Waker(Protocol):
    """What a platform has beside :class:`TrapHandler` that knows more of a vCPU that sleeps than the vCPU itself."""

    def rouse(self, vcpu: Vcpu) -> None:
        """End a vCPU's sleep before anything happens, as hlt and its hypercalls allow; one that is down stays so."""


class MemoryDevice(Protocol):
    """Registers in the physical address space. A handler may ask the run to stop, but not move RIP."""

    def load(self, vcpu: Vcpu, offset: int, size: int) -> int:
        """The guest reads 1, 2, 4 or 8 bytes at an offset into the device's range."""

    def store(self, vcpu: Vcpu, offset: int, size: int, value: int) -> None:
        """The guest writes 1, 2, 4 or 8 bytes."""


@runtime_checkable
class SyscallInPlace(Protocol):
    """What a platform may have besides, for system calls that mostly go on at the next instruction.

    Writing RIP from a handler makes the engine begin again; these calls are spared that.

    Attributes:
        call_registers: what the guest passes them in, eight registers at most; the first gets the result.
    """

    call_registers: tuple[str, ...]

    def syscall_in_place(self, vcpu: Vcpu, *values: int) -> int | None:
        """The guest executed syscall with these values in the registers; RIP is still at it and must not be written.

        A result: this was all, and the guest goes on after the instruction. None: ``syscall`` is to follow.
        """


@runtime_checkable
class Shadows(Protocol):
    """What a platform has besides whose CPUs do not walk the guest's own page tables."""

    def demand(self, address: int, error_code: int) -> bool:
        """Fill what only the shadows lack for an access that faulted; False if the guest's tables do not allow it."""
