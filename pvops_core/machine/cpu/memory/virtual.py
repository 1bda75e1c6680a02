"""Guest-virtual memory as seen from a vCPU: translated by a software walk, read and written in the host buffer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.machine.cpu.memory.paging import Access, Paging, Walk
from pvops_core.machine.engines import MixedBatch
from pvops_core.x86 import FLAG_AC, MSR_EFER

if TYPE_CHECKING:
    from pvops_core.machine.engines import Engine
    from pvops_core.machine.memory import PhysicalMemory

LONGEST: Final = 15
"""Bytes of the longest instruction. Source: Intel SDM volume 2, 2.3.11."""


class VirtualMemory:
    """Virtual accesses of one vCPU: GuestFault where the CPU would fault, no accessed or dirty bits set."""

    def __init__(self, engine: Engine, memory: PhysicalMemory, bits: int) -> None:
        self._memory = memory
        self._mask = (1 << bits) - 1
        # Six registers in one call of the engine: translating is most of what Python does for a guest.
        deciding = MixedBatch(engine, ("cr0", "cr3", "cr4", "cs", "eflags"), MSR_EFER)
        self._look, self._values, self._efer = deciding.read, deciding.values, deciding.msr

    def paging(self) -> tuple[Paging, bool]:
        """The registers that decide translation, and whether the vCPU is in user mode."""
        self._look()
        cr0, cr3, cr4, cs, flags = self._values
        return Paging(cr0, cr3, cr4, self._efer.value, bool(flags & FLAG_AC)), cs & 3 == 3

    def key(self) -> tuple[int, ...]:
        """What decides how an address is translated: two vCPUs of one machine with one key translate alike."""
        self._look()
        cr0, cr3, cr4, cs, flags = self._values
        return cr0, cr3, cr4, self._efer.value, flags & FLAG_AC, cs & 3

    def walk(self, va: int, *, write: bool = False, user: bool | None = None, fetch: bool = False) -> Walk:
        """Translate an address; ``user`` None means as the current privilege level."""
        paging, is_user = self.paging()
        return paging.walk(self._memory, va & self._mask, Access(write, is_user if user is None else user, fetch))

    def _places(self, va: int, n: int, access: Access, paging: Paging) -> list[tuple[int, int]]:
        """Physical address and length of each piece of a range, all translated before any is touched."""
        places = []
        while n > 0:
            va &= self._mask
            size = min(n, 0x1000 - (va & 0xFFF))
            places.append((paging.address(self._memory, va, access), size))
            va += size
            n -= size
        return places

    def read(self, va: int, n: int, *, system: bool = False) -> bytes:
        """Read ``n`` bytes; ``system`` reads as the CPU reads its own tables, at level 0."""
        paging, user = self.paging()
        memory, access = self._memory, Access(user=user and not system)
        if 0 < n <= 0x1000 - (va & 0xFFF):  # within one page, as most are
            # Asked first, since nearly every access is of a word or a structure on one page.
            return memory.read(paging.address(memory, va & self._mask, access), n)
        return b"".join([memory.read(pa, size) for pa, size in self._places(va, n, access, paging)])

    def code(self, va: int) -> bytes:
        """The bytes of an instruction and some that follow: 15, or those on its page where the next is not there."""
        for size in (LONGEST, 0x1000 - (va & 0xFFF)):
            try:
                # An instruction near a page's end may end before the page behind it, which need not be there.
                return self.read(va, min(size, LONGEST), system=True)
            except GuestFault:
                continue
        return b""

    def write(self, va: int, data: bytes, *, system: bool = False) -> None:
        """Write bytes: all of them, or none when a page of them faults."""
        paging, user = self.paging()
        self._write(va, data, Access(write=True, user=user and not system), paging)

    def write_as(self, va: int, data: bytes, *, user: bool) -> None:
        """Write as level 3 or as a supervisor, whatever the level is now."""
        self._write(va, data, Access(write=True, user=user), self.paging()[0])

    def _write(self, va: int, data: bytes, access: Access, paging: Paging) -> None:
        memory, n, at = self._memory, len(data), 0
        if 0 < n <= 0x1000 - (va & 0xFFF):  # within one page, as most are
            memory.write(paging.address(memory, va & self._mask, access), data)
            return
        # Translated whole before the first byte is written: a store that faults on its second page writes nothing.
        for pa, size in self._places(va, n, access, paging):
            memory.write(pa, data[at : at + size])
            at += size

    def number(self, va: int, size: int, *, system: bool = False) -> int:
        """A little-endian number."""
        return int.from_bytes(self.read(va, size, system=system), "little")

    def set_number(self, va: int, size: int, value: int, *, system: bool = False) -> None:
        """Write a little-endian number, cut to its size."""
        self.write(va, (value & (1 << size * 8) - 1).to_bytes(size, "little"), system=system)
