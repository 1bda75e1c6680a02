"""Guest-virtual memory as seen from a vCPU: translated by a software walk, read and written in the host buffer."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from pvops_core.machine import engine as uc
from pvops_core.machine.memory import PhysicalMemory
from pvops_core.machine.paging import Access, Paging, Walk
from pvops_core.machine.registers import FLAG_AC, MSR_EFER, Registers

_READ, _WRITE = Access(), Access(write=True)
_USER_READ, _USER_WRITE = Access(user=True), Access(user=True, write=True)


class VirtualMemory:
    """Virtual accesses of one vCPU. All raise GuestFault where the CPU would fault; none sets accessed or dirty bits."""

    def __init__(self, registers: Registers, engine: uc.Engine, memory: PhysicalMemory, bits: int) -> None:
        self._memory = memory
        self._mask = (1 << bits) - 1
        self._engine = engine
        names = ("cr0", "cr3", "cr4", "cs", "eflags")
        self._ids = (ctypes.c_int * 6)(*(uc.REGISTER_IDS[name] for name in names), uc.REGISTER_IDS["msr"])
        self._values = (ctypes.c_uint64 * 5)()
        self._efer = uc.MsrValue(MSR_EFER, 0)
        start = ctypes.addressof(self._values)
        places = [start + 8 * index for index in range(5)]
        self._pointers = (ctypes.c_void_p * 6)(*places, ctypes.addressof(self._efer))
        self._registers = registers

    def paging(self) -> tuple[Paging, bool]:
        """The registers that decide translation, and whether the vCPU is in user mode."""
        uc.reg_read_batch(self._engine.handle, self._ids, self._pointers, 6)
        cr0, cr3, cr4, cs, flags = self._values
        return Paging(cr0, cr3, cr4, self._efer.value, bool(flags & FLAG_AC)), cs & 3 == 3

    def walk(self, va: int, *, write: bool = False, user: bool | None = None, fetch: bool = False) -> Walk:
        """Translate an address; ``user`` None means as the current privilege level."""
        paging, is_user = self.paging()
        return paging.walk(self._memory, va & self._mask, Access(write, is_user if user is None else user, fetch))

    def _pieces(self, va: int, n: int, *, write: bool, system: bool) -> Iterator[tuple[int, int]]:
        paging, user = self.paging()
        if system or not user:
            access = _WRITE if write else _READ
        else:
            access = _USER_WRITE if write else _USER_READ
        va &= self._mask
        while n > 0:
            size = min(n, 0x1000 - (va & 0xFFF))
            yield paging.walk(self._memory, va, access).pa, size
            va = va + size & self._mask
            n -= size

    def read(self, va: int, n: int, *, system: bool = False) -> bytes:
        """Read ``n`` bytes; ``system`` reads as the CPU reads its own tables, at level 0."""
        pieces = list(self._pieces(va, n, write=False, system=system))
        return b"".join(self._memory.read(pa, size) for pa, size in pieces)

    def write(self, va: int, data: bytes, *, system: bool = False) -> None:
        """Write bytes: all of them, or none when a page of them faults."""
        at = 0
        for pa, size in list(self._pieces(va, len(data), write=True, system=system)):
            self._memory.write(pa, data[at : at + size])
            at += size

    def write_as(self, va: int, data: bytes, *, user: bool) -> None:
        """Write as level 3 or as a supervisor, whatever the level now."""
        paging, _ = self.paging()
        access = _USER_WRITE if user else _WRITE
        at, places = 0, []
        while at < len(data):
            here = va + at & self._mask
            size = min(len(data) - at, 0x1000 - (here & 0xFFF))
            places.append((paging.walk(self._memory, here, access).pa, at, size))
            at += size
        for pa, start, size in places:
            self._memory.write(pa, data[start : start + size])

    def number(self, va: int, size: int, *, system: bool = False) -> int:
        """A little-endian number."""
        return int.from_bytes(self.read(va, size, system=system), "little")

    def set_number(self, va: int, size: int, value: int, *, system: bool = False) -> None:
        """Write a little-endian number, cut to its size."""
        self.write(va, (value & (1 << size * 8) - 1).to_bytes(size, "little"), system=system)
