"""Walks of the guest's page tables by machine address, as Xen's linear page tables let it reach any entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_xen.hypervisor.access import addr_ok
from pvops_xen.hypervisor.memory import entries as pte

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvops_core.machine import PhysicalMemory
    from pvops_xen.hypervisor.core import Hypervisor


_NO_FRAME = (1 << 64) - 1
"""INVALID_M2P_ENTRY, printed where a frame has no pseudo-physical one."""


def levels(bits: int) -> int:
    """Levels of page tables: 4, or 3 with PAE."""
    return 4 if bits == 64 else 3


def entry_address(memory: PhysicalMemory, root: int, va: int, bits: int, level: int = 1) -> int | None:
    """Machine address of the entry of a level that maps ``va``; None if an upper entry is not present."""
    table = root << 12
    for current in range(levels(bits), level, -1):
        entry = memory.u64(table + (va >> (3 + 9 * current) & 511) * 8)
        # A large page ends the walk: there is no first-level entry then.
        if not entry & pte.P or (current == 2 and entry & pte.PSE):
            return None
        table = entry & pte.ADDRESS
        # A frame beyond memory is one that Xen would not have let in.
        if table >= memory.size:
            return None
    return table + (va >> (3 + 9 * level) & 511) * 8


def guest_l1e(hv: Hypervisor, index: int, va: int) -> int | None:
    """``map_guest_l1e``: machine address of the L1 entry for an address in the vCPU's present address space."""
    if not addr_ok(hv.abi, va):
        return None
    return entry_address(hv.memory, hv.space.root(index), va, hv.abi.bits)


def told(hv: Hypervisor, index: int, va: int) -> Iterator[str]:
    """``show_page_walk``: each level's entry for an address, and the pseudo-physical frame that it names."""
    yield f"Pagetable walk from {va:016x}:"
    root, bits = hv.space.root(index), hv.abi.bits
    for level in range(levels(bits), 0, -1):
        at = entry_address(hv.memory, root, va, bits, level) if addr_ok(hv.abi, va) else None
        if at is None:
            return
        entry = hv.memory.u64(at)
        mfn = (entry & pte.ADDRESS) >> 12
        pfn = hv.pfn_of(mfn) if entry & pte.P and mfn << 12 < hv.memory.size else -1
        large = " (PSE)" if level > 1 and entry & pte.PSE else ""
        index_of = va >> (3 + 9 * level) & 511
        yield f" L{level}[0x{index_of:03x}] = {entry:016x} {pfn & _NO_FRAME:016x}{large}"
