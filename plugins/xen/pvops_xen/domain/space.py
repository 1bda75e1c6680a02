"""The domain's first address space: which pseudo-physical frames hold what, and the page tables that map them.

The order of things is libxenguest's (tools/libs/guest/xg_dom_core.c, xg_dom_x86.c): kernel, ramdisk unless it stays
unmapped, p2m list unless it has an address of its own, start_info, xenstore and console pages, page tables, boot
stack. The mapping goes on to a 4 MiB boundary at least 512 KiB further on. Then come what is not mapped with it.
"""

from __future__ import annotations

from typing import Final

import attrs
import numpy as np
import numpy.typing as npt

from pvops_core.errors import MachineError
from pvops_xen.hypervisor.abi import PAGE_SHIFT, PAGE_SIZE
from pvops_xen.hypervisor.memory import entries as pte

SLACK: Final = 512 << 10
BOUNDARY: Final = 4 << 20
_L1_FLAGS: Final = pte.P | pte.RW | pte.A
_UPPER: Final = pte.P | pte.RW | pte.USER | pte.A | pte.D
_PAE_LAST_GIB: Final = 0xC000_0000
Entries = npt.NDArray[np.uint64]
Key = tuple[int, int]
"""A table: its level, and the address that it maps first, divided by what it maps in all."""


def pages(size: int) -> int:
    """Pages that hold ``size`` bytes."""
    return (size + PAGE_SIZE - 1) >> PAGE_SHIFT


@attrs.frozen
class Area:
    """Frames in a row, mapped in a row: ``count`` of them from ``pfn`` at the virtual address ``va``."""

    va: int
    pfn: int
    count: int

    @property
    def end(self) -> int:
        """First address after it."""
        return self.va + (self.count << PAGE_SHIFT)


@attrs.define
class Space:
    """Page tables over areas.

    Attributes:
        bits: 32 or 64.
        areas: what is mapped.
        tables: pseudo-physical frame of each table.
    """

    bits: int
    areas: list[Area] = attrs.field(factory=list)
    tables: dict[Key, int] = attrs.field(factory=dict)

    @property
    def levels(self) -> int:
        """Level of the root."""
        return 4 if self.bits == 64 else 3

    def needed(self, va: int, count: int) -> list[Key]:
        """Tables not there yet that a mapping of ``count`` pages needs, the root first."""
        found: list[Key] = []
        last = va + (count << PAGE_SHIFT) - 1
        for level in range(self.levels, 0, -1):
            shift = PAGE_SHIFT + 9 * level
            keys = {(level, number) for number in range(va >> shift, (last >> shift) + 1)}
            if self.bits == 32 and level == 2:
                keys.add((2, _PAE_LAST_GIB >> shift))  # Xen's own slots are there
            if level == self.levels:
                keys = {(level, 0)}  # numbers of a 64-bit root differ in bits that translation ignores
            found += sorted(keys - self.tables.keys())
        return found

    def add(self, area: Area, first_table: int) -> int:
        """Map an area, with its new tables in frames from ``first_table`` on; how many there are."""
        keys = self.needed(area.va, area.count)
        self.tables |= {key: first_table + index for index, key in enumerate(keys)}
        self.areas.append(area)
        return len(keys)

    def contents(self, p2m: Entries) -> dict[int, bytes]:
        """Pseudo-physical frame of each table, and its 512 entries.

        Args:
            p2m: machine frame by pseudo-physical frame.
        """
        arrays = {key: np.zeros(512, dtype="<u8") for key in self.tables}
        self._link(arrays, p2m)
        for area in self.areas:
            self._map(arrays, area, p2m)
        return {self.tables[key]: array.tobytes() for key, array in arrays.items()}

    def _link(
        self,
        arrays: dict[Key, Entries],
        p2m: Entries,
    ) -> None:
        """Enter every table in the one above."""
        for (level, number), pfn in self.tables.items():
            if level == self.levels:
                continue
            parent = (level + 1, number >> 9 if level + 1 < self.levels else 0)
            flags = pte.P if self.levels == 3 and level == 2 else _UPPER
            arrays[parent][number & 511] = int(p2m[pfn]) << PAGE_SHIFT | flags

    def _map(
        self,
        arrays: dict[Key, Entries],
        area: Area,
        p2m: Entries,
    ) -> None:
        """Fill the lowest tables: frames that hold tables are read-only."""
        entries = p2m[area.pfn : area.pfn + area.count] << np.uint64(PAGE_SHIFT) | np.uint64(_L1_FLAGS)
        for pfn in self.tables.values():
            if area.pfn <= pfn < area.pfn + area.count:
                entries[pfn - area.pfn] &= np.uint64(~pte.RW & (1 << 64) - 1)
        page, done = area.va >> PAGE_SHIFT, 0
        while done < area.count:
            slot = page + done & 511
            size = min(512 - slot, area.count - done)
            arrays[1, page + done >> 9][slot : slot + size] = entries[done : done + size]
            done += size


@attrs.frozen
class Plan:
    """Pseudo-physical frames of a domain's first things.

    Attributes:
        initrd: first frame of the ramdisk.
        p2m: first frame of the p2m list.
        start_info, xenstore, console, stack: frames of these pages.
        tables: frame of the root, followed by the other tables of the kernel's mapping.
        table_count: how many those are.
        p2m_frames: frames of the p2m list together with the tables that map it, where it has its own address; else 0.
        space: the tables and what they map.
        end: first frame that is not used.
    """

    initrd: int
    p2m: int
    start_info: int
    xenstore: int
    console: int
    tables: int
    table_count: int
    stack: int
    p2m_frames: int
    space: Space
    end: int


@attrs.frozen
class MemoryRequest:
    """What a plan has to find room for.

    Attributes:
        bits: 32 or 64.
        virt_base: address of frame 0.
        kernel_end: first frame after the kernel.
        initrd_pages: of the ramdisk.
        initrd_mapped: it belongs into the kernel's mapping.
        p2m_pages: of the p2m list.
        p2m_address: its own address; None: in the kernel's mapping.
        memory: frames of the domain.
    """

    bits: int
    virt_base: int
    kernel_end: int
    initrd_pages: int
    initrd_mapped: bool
    p2m_pages: int
    p2m_address: int | None
    memory: int


def plan(request: MemoryRequest) -> Plan:
    """Lay a domain out.

    Raises:
        MachineError: its memory is too small, or its mapping does not fit into the address space.
    """
    at = request.kernel_end
    initrd = p2m = at
    if request.initrd_mapped:
        at += request.initrd_pages
        p2m = at
    if request.p2m_address is None:
        at += request.p2m_pages
    start_info, xenstore, console, first_table = at, at + 1, at + 2, at + 3
    space = Space(request.bits)
    mapped = _mapped(request, space, first_table)
    count = space.add(Area(request.virt_base, 0, mapped), first_table)
    at = mapped
    if not request.initrd_mapped:
        initrd = at
        at += request.initrd_pages
    p2m_frames = 0
    if request.p2m_address is not None:
        p2m = at
        p2m_frames = request.p2m_pages
        p2m_frames += space.add(Area(request.p2m_address, p2m, request.p2m_pages), p2m + request.p2m_pages)
        at += p2m_frames
    if at > request.memory:
        raise MachineError(f"the guest needs {at} pages of memory to start and has {request.memory}")
    return Plan(
        initrd, p2m, start_info, xenstore, console, first_table, count, first_table + count, p2m_frames, space, at
    )


def _mapped(request: MemoryRequest, space: Space, first_table: int) -> int:
    """Pages of the kernel's mapping: to a boundary after tables, stack and slack, whose number depends on it."""
    count = 0
    while True:
        need = request.virt_base + (first_table + count + 1 << PAGE_SHIFT) + SLACK
        end = (need + BOUNDARY - 1) & -BOUNDARY
        if end > 1 << request.bits:
            raise MachineError("the guest's first mapping does not fit above its virtual base")
        mapped = end - request.virt_base >> PAGE_SHIFT
        enough = len(space.needed(request.virt_base, mapped))
        if enough <= count:
            return mapped
        count = enough
