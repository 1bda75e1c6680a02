"""map_grant_ref, unmap_grant_ref, unmap_and_replace: grants in the domain's own page tables.

The references of a mapping belong to its page-table entry, so an entry that the guest itself overwrites gives them
back as any other does; a mapping for devices holds its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor.abi import PAGE_SHIFT
from pvops_xen.hypervisor.grants import use
from pvops_xen.hypervisor.grants.state import GntMap, GrantRefusedError, GrantStatus, Mapping
from pvops_xen.hypervisor.memory import entries as pte
from pvops_xen.hypervisor.memory import update
from pvops_xen.hypervisor.memory.frames import FrameType
from pvops_xen.hypervisor.memory.walk import guest_l1e

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_AVAILABLE: Final = 7 << 9  # bits of an entry that are the guest's own


def map_grant(hv: Hypervisor, cpu: Vcpu, where: tuple[int, int], ref: int, domid: int) -> tuple[int, int]:
    """map_grant_ref(): at (address, ``GntMap`` flags); gives the handle and the frame's machine address.

    Raises:
        RefusedError: it cannot be mapped so.
    """
    address, flags = where
    # A mapping that is neither for processors nor for devices is of no use, and is not begun.
    if not flags & (GntMap.DEVICE_MAP | GntMap.HOST_MAP):
        hv.log(f"Bad flags in grant map op: {flags:x}")
        raise GrantRefusedError(GrantStatus.BAD_GNTREF)
    own = use.is_own(hv, domid, self_too=False)
    grants = hv.domain.grants
    handle = grants.take_handle(cpu.index)
    if handle is None:
        raise GrantRefusedError(GrantStatus.NO_DEVICE_SPACE)
    try:
        if not own:
            raise use.nothing_of_dom0(ref)
        active = use.begin(hv, ref, readonly=bool(flags & GntMap.READONLY), copying=False)
        active.pin(flags)
        try:
            _take_references(hv, cpu, address, active.mfn, flags)
        except GrantRefusedError:
            active.pin(flags, -1)
            use.end(hv, ref)
            raise
    except GrantRefusedError:
        grants.give_handle(cpu.index, handle)
        # The handle came about with the request and goes with it.
        raise
    grants.mappings[handle] = Mapping(domid, ref, flags)
    return handle, active.mfn << PAGE_SHIFT


def _take_references(hv: Hypervisor, cpu: Vcpu, address: int, mfn: int, flags: int) -> None:
    held = 0
    # In this order as Xen takes them, so that a failure gives back what was taken.
    for kind in (GntMap.DEVICE_MAP, GntMap.HOST_MAP):
        if not flags & kind:
            continue
        if not _hold(hv, mfn, flags):
            _let_go(hv, mfn, flags, held)
            raise GrantRefusedError(GrantStatus.GENERAL_ERROR)
        held += 1
    if flags & GntMap.HOST_MAP and not _enter(hv, cpu, address, mfn, flags):
        _let_go(hv, mfn, flags, held)
        raise GrantRefusedError(GrantStatus.GENERAL_ERROR)


def _hold(hv: Hypervisor, mfn: int, flags: int) -> bool:
    if not hv.frames.get_page(mfn):
        return False
    # A read-only mapping holds the frame, not its writable type: others may write it.
    if not flags & GntMap.READONLY and hv.validator.get_type(mfn, FrameType.WRITABLE):
        hv.log(f"Could not pin grant frame {mfn:x}")
        hv.frames.put_page(mfn)
        return False
    return True


def _let_go(hv: Hypervisor, mfn: int, flags: int, times: int) -> None:
    for _ in range(times):
        if flags & GntMap.READONLY:
            hv.frames.put_page(mfn)
        else:
            hv.validator.put_page_and_type(mfn)


# --- page-table entries ----------------------------------------------------------------------------------------------


def _entry_flags(flags: int) -> int:
    """``grant_to_pte_flags``."""
    # GNTMAP_guest_avail0 is bit 16, the first of an entry's bits 9
    found = pte.P | pte.A | pte.D | flags >> 7 & _AVAILABLE
    if not flags & GntMap.READONLY:
        found |= pte.RW
    if flags & GntMap.APPLICATION_MAP:
        found |= pte.USER
    return found


def _place(hv: Hypervisor, cpu: Vcpu, address: int, flags: int) -> int | None:
    """Machine address of the L1 entry that a mapping is for; None if there is none."""
    # CONTAINS_PTE: the guest names the entry itself, which must be aligned as one.
    if flags & GntMap.CONTAINS_PTE:
        place: int | None = None if address & 7 else address
    elif address > hv.abi.mask:
        place = None
    else:
        place = guest_l1e(hv, cpu.index, address)
    if place is None or not hv.frames.is_guests(place >> PAGE_SHIFT):
        hv.log(f"Could not find L1 PTE for {address:x}")
        return None
    return place if hv.frames.in_use_as(place >> PAGE_SHIFT) == FrameType.L1 else None


def _enter(hv: Hypervisor, cpu: Vcpu, address: int, mfn: int, flags: int) -> bool:
    """Put a mapping into its entry, whose old contents give back what they hold."""
    place = _place(hv, cpu, address, flags)
    if place is None:
        return False
    old = update.read_entry(hv.validator, place)
    entry = pte.adjust(mfn << PAGE_SHIFT | _entry_flags(flags), 1, hv.abi.bits)
    hv.memory.set_u64(place, entry)
    # What was mapped there before is given back, as by any store to the entry.
    if old & pte.P:
        hv.validator.put_entry(old, 1, place >> PAGE_SHIFT)
        # All vCPUs: the old mapping may be in any of their TLBs.
        hv.flush_tlb()
    return True


def unmap_grant(hv: Hypervisor, cpu: Vcpu, handle: int, where: tuple[int, int], replacement: int = 0) -> None:
    """unmap_common(): take a mapping away, at (host address, device address), 0 for one that stays.

    Args:
        hv: the hypervisor.
        cpu: who asks.
        handle: what mapping it gave.
        where: the addresses.
        replacement: address whose entry moves to the place of the mapping; 0 for none.

    Raises:
        RefusedError: there is no such mapping.
    """
    host, device = where
    grants = hv.domain.grants
    mapping = grants.mappings.get(handle)
    if mapping is None:
        hv.log(f"Bad d{hv.domain.domid} handle {handle:#x}")
        raise GrantRefusedError(GrantStatus.BAD_HANDLE)
    active = grants.active[mapping.ref]
    # The device address must be the frame's own, or the entry is another's.
    if device and device != active.mfn << PAGE_SHIFT:
        raise GrantRefusedError(GrantStatus.GENERAL_ERROR)
    mfn, mode = active.mfn, mapping.flags & GntMap.READONLY
    if host and mapping.flags & GntMap.HOST_MAP:
        _leave(hv, cpu, host, mfn, mapping.flags, replacement)
        mapping.flags &= ~GntMap.HOST_MAP
        active.pin(GntMap.HOST_MAP | mode, -1)
        _let_go(hv, mfn, mode, 1)
    if device and mapping.flags & GntMap.DEVICE_MAP:
        mapping.flags &= ~GntMap.DEVICE_MAP
        active.pin(GntMap.DEVICE_MAP | mode, -1)
        _let_go(hv, mfn, mode, 1)
    # Both kinds are gone: nothing of the mapping is left.
    if not mapping.flags & (GntMap.DEVICE_MAP | GntMap.HOST_MAP):
        grants.give_handle(cpu.index, handle)
    use.end(hv, mapping.ref)
    hv.flush_tlb()


def _leave(hv: Hypervisor, cpu: Vcpu, address: int, mfn: int, flags: int, replacement: int) -> None:
    """``replace_grant_pv_mapping``: clear the entry of a mapping, or put another's contents there."""
    source = None
    if replacement:
        source = None if flags & GntMap.CONTAINS_PTE else _place(hv, cpu, replacement, 0)
        if source is None:
            raise GrantRefusedError(GrantStatus.GENERAL_ERROR)
    place = _place(hv, cpu, address, flags)
    if place is None:
        raise GrantRefusedError(GrantStatus.GENERAL_ERROR)
    entry = update.read_entry(hv.validator, place)
    # The guest may have changed what counts for nobody: accessed, dirty, its own bits.
    if pte.frame_of(entry) != mfn or (entry ^ _entry_flags(flags)) & (pte.P | pte.RW):
        hv.log(f"PTE {entry:016x} for {address:x} doesn't match grant")
        raise GrantRefusedError(GrantStatus.GENERAL_ERROR)
    moved = 0
    if source is not None and source != place:
        # Moved, not copied: at no time do two entries hold the one reference (``replace_grant_pv_mapping``).
        moved = update.read_entry(hv.validator, source)
        hv.memory.set_u64(source, 0)
    hv.memory.set_u64(place, moved)
