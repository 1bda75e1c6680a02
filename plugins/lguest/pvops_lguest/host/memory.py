"""Guest-physical memory as the host sees it: the guest's share only, and a kill for anything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pvops_lguest.host.kill import GuestKilledError

if TYPE_CHECKING:
    from pvops_core.machine import PhysicalMemory

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
PAGE_MASK = PAGE_SIZE - 1


class GuestMemory:
    """lgread() and lgwrite(): below the guest's limit; the host's own share of machine memory lies above it.

    Addresses are guest-physical bytes, which here are machine-physical ones. An access that leaves the
    guest's share kills the guest, as lgread() and lgwrite() of drivers/lguest/core.c do.
    """

    def __init__(self, memory: PhysicalMemory, limit: int) -> None:
        self._memory = memory
        self.limit = limit

    def _check(self, pa: int, length: int, verb: str) -> None:
        # lguest_address_ok(): the sum is compared as well, for an address near the end may wrap in C.
        if not 0 <= pa <= pa + length <= self.limit:
            raise GuestKilledError(f"bad {verb} address {pa:#x} len {length}")

    def read(self, pa: int, length: int) -> bytes:
        """``length`` bytes at ``pa``.

        Raises:
            GuestKilledError: they are not all the guest's.
        """
        self._check(pa, length, "read")
        return self._memory.read(pa, length)

    def write(self, pa: int, data: bytes) -> None:
        """Write ``data`` at ``pa``.

        Raises:
            GuestKilledError: the bytes are not all the guest's.
        """
        self._check(pa, len(data), "write")
        self._memory.write(pa, data)

    def u32(self, pa: int) -> int:
        """The 32-bit word at ``pa``.

        Raises:
            GuestKilledError: it is not the guest's.
        """
        self._check(pa, 4, "read")
        return self._memory.u32(pa)

    def set_u32(self, pa: int, value: int) -> None:
        """Write the 32-bit word ``value`` at ``pa``.

        Raises:
            GuestKilledError: it is not the guest's.
        """
        self._check(pa, 4, "write")
        self._memory.set_u32(pa, value)

    def u64(self, pa: int) -> int:
        """The 64-bit word at ``pa``, as :meth:`u32`."""
        self._check(pa, 8, "read")
        return self._memory.u64(pa)

    def set_u64(self, pa: int, value: int) -> None:
        """Write the 64-bit word ``value`` at ``pa``, as :meth:`set_u32`."""
        self._check(pa, 8, "write")
        self._memory.set_u64(pa, value)


class VirtualGuestMemory:
    """Guest-virtual words through the guest's own page tables, for frames that the host pushes."""

    def __init__(self, guest: GuestMemory, translate: Callable[[int], int]) -> None:
        self._guest = guest
        self._translate = translate

    def set_u32(self, va: int, value: int) -> None:
        """Write a 32-bit word at ``va``, which may straddle two pages.

        Raises:
            GuestKilledError: the guest's tables do not map it.
        """
        # One write where it can be one: this is every word of every trap's frame.
        if (va & PAGE_MASK) <= PAGE_SIZE - 4:
            self._guest.set_u32(self._translate(va), value)
            return
        # Byte by byte, for the two pages need not lie one behind the other.
        for offset, byte in enumerate((value & 0xFFFFFFFF).to_bytes(4, "little")):
            self._guest.write(self._translate((va + offset) & 0xFFFFFFFF), bytes([byte]))
