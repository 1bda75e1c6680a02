"""A kernel's memory that stays where it is once it is mapped: variables, per-CPU areas, struct pages, the p2m list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from pvops_core.guest.names import Names
    from pvops_core.machine import Machine, Vcpu

_OFFSET: Final = PAGE - 1


class KernelWords:
    """Reads and writes it by guest-virtual address; where each page lies is asked once.

    Args:
        machine: the machine.
        names: finds the kernel's variables.
    """

    def __init__(self, machine: Machine, names: Names) -> None:
        self._memory = machine.memory
        self._names = names
        self._pages: dict[int, int] = {}

    def at(self, va: int) -> int:
        """Machine address of a byte; GuestFault where there is no memory."""
        page = self._pages.get(va & -PAGE)
        # Once for all: this memory never moves, and each lookup is a walk.
        if page is None:
            page = self._pages[va & -PAGE] = self._names.place(va & -PAGE)
        return page | va & _OFFSET

    def forget(self, va: int) -> None:
        """Ask anew where the page of an address lies."""
        self._pages.pop(va & -PAGE, None)

    def of_cpu(self, symbol: str, cpu: Vcpu) -> int:
        """Machine address of a processor's own of a per-CPU variable."""
        return self.at(self._names.per_cpu(symbol, cpu))

    def u64(self, va: int) -> int:
        """A naturally aligned word."""
        return self._memory.u64(self.at(va))

    def set_u64(self, va: int, value: int) -> None:
        """Write one."""
        self._memory.set_u64(self.at(va), value)

    def u32(self, va: int) -> int:
        """Half of it."""
        return self._memory.u32(self.at(va))

    def set_u32(self, va: int, value: int) -> None:
        """Write one."""
        self._memory.set_u32(self.at(va), value)

    def u8(self, va: int) -> int:
        """A byte of it."""
        return self._memory.u8(self.at(va))

    def set_u8(self, va: int, value: int) -> None:
        """Write one."""
        self._memory.set_u8(self.at(va), value)

    def read(self, va: int, length: int) -> bytes:
        """Bytes, in any number of pages."""
        found = b""
        while length:
            size = min(length, PAGE - (va & _OFFSET))
            found += self._memory.read(self.at(va), size)
            va, length = va + size, length - size
        return found

    def write(self, va: int, data: bytes) -> None:
        """Write bytes."""
        while data:
            size = min(len(data), PAGE - (va & _OFFSET))
            self._memory.write(self.at(va), data[:size])
            va, data = va + size, data[size:]
