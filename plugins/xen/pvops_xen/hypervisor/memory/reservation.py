"""Giving frames back and getting some: increase, decrease, populate (xen/common/memory.c).

What cannot be done ends the call; the answer is how many extents were done, and never an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.machine.cpu.faults import GuestFault
from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import DOMID_SELF, ERESTART, PAGE_SHIFT, MemoryOp
from pvops_xen.hypervisor.memory.frames import ALLOCATED, FREE, GUEST, PINNED
from pvops_xen.public import MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

STRETCH: Final = 4096
"""Frames after which a call is preempted."""
COMMAND_BITS: Final = 6  # MEMOP_EXTENT_SHIFT: above it a preempted call keeps how far it was
MAX_ORDER: Final = 9  # that a domain without devices may ask for
_MOST_EXTENTS: Final = (1 << 32) - 1 >> 6  # more could not be kept there
_RESERVATION: Final = MEMORY["xen_memory_reservation"].whole(
    "extent_start", "nr_extents", "extent_order", "mem_flags", "domid"
)
NOWHERE: Final = (1 << 64) - 1


@attrs.frozen
class Reservation:
    """xen_memory_reservation: extents of 2**order frames, ``start`` being the address of their list."""

    start: int
    count: int
    order: int
    flags: int
    domid: int


def read(hv: Hypervisor, cpu: Vcpu, address: int) -> Reservation:
    """The structure in guest memory."""
    return Reservation(*access.fetch(hv, cpu, address, _RESERVATION))


def adjust(hv: Hypervisor, cpu: Vcpu, kind: MemoryOp, argument: int, done: int) -> int:
    """Do one of ``OPERATIONS`` for the extents from number ``done`` on; how many are done, or -ERESTART for more."""
    try:
        wanted = read(hv, cpu, argument)
    except (access.BadHandleError, GuestFault):
        return done
    if wanted.count > _MOST_EXTENTS or done >= wanted.count:
        return done
    if wanted.domid not in {DOMID_SELF, hv.domain.domid} or wanted.order > MAX_ORDER:
        return done
    if wanted.start and not access.addr_ok(hv.abi, wanted.start, wanted.count * hv.abi.word):
        return done
    operation = OPERATIONS[kind]
    if kind != MemoryOp.DECREASE_RESERVATION:  # never beyond what the domain may have
        wanted = attrs.evolve(wanted, count=min(wanted.count, done + (hv.domain.nr_pages - held(hv) >> wanted.order)))
    # One extent may be longer than the stretch, and is done in one piece.
    pause = done + max(STRETCH >> wanted.order, 1)
    try:
        while done < wanted.count and operation(hv, cpu, wanted, done):
            done += 1
            if done == pause < wanted.count:
                # MEMOP_EXTENT_SHIFT: the command holds how far it was for the next time.
                hv.continuation = kind | done << COMMAND_BITS, argument
                return -ERESTART
    except (access.BadHandleError, GuestFault):
        pass
    return done


def _extent(hv: Hypervisor, wanted: Reservation, index: int) -> int:
    """Address of an element of the list."""
    return wanted.start + index * hv.abi.word


def _decrease(hv: Hypervisor, cpu: Vcpu, wanted: Reservation, index: int) -> bool:
    mfn = access.read_word(hv, cpu, _extent(hv, wanted, index))
    # All or none of an extent: the guest is told how many extents were done.
    return all(give_up(hv, mfn + i) for i in range(1 << wanted.order))


def give_up(hv: Hypervisor, mfn: int) -> bool:
    """``guest_remove_page``: unpin the frame and drop the domain's own reference; the last reference frees it."""
    frames = hv.frames
    if not frames.is_guests(mfn) or not frames.flags[mfn] & ALLOCATED:
        return False
    # PGT_pinned is a type reference that the guest itself took.
    if frames.flags[mfn] & PINNED:
        frames.flags[mfn] &= ~PINNED
        hv.validator.put_page_and_type(mfn)
    # The domain's own reference goes last: ``PGC_allocated`` holds the frame up to here.
    frames.flags[mfn] &= ~ALLOCATED
    frames.put_page(mfn)
    # INVALID_M2P_ENTRY, before somebody else may get the frame.
    hv.set_pfn_of(mfn, NOWHERE)
    return True


def _increase(hv: Hypervisor, cpu: Vcpu, wanted: Reservation, index: int) -> bool:
    """New frames that take no place in pseudo-physical memory."""
    first = find_free(hv, wanted.order)
    if first is None:
        return False
    if wanted.start:
        access.write_word(hv, cpu, _extent(hv, wanted, index), first)
    give(hv, first, wanted.order, None)
    return True


def _populate(hv: Hypervisor, cpu: Vcpu, wanted: Reservation, index: int) -> bool:
    """New frames for the places that the list names; their numbers go there instead."""
    pfn = access.read_word(hv, cpu, _extent(hv, wanted, index))
    first = find_free(hv, wanted.order)
    if first is None:
        return False
    access.write_word(hv, cpu, _extent(hv, wanted, index), first)
    give(hv, first, wanted.order, pfn)
    return True


def held(hv: Hypervisor) -> int:
    """domain_tot_pages(): frames that the domain has."""
    return sum(
        1 for owner, flags in zip(hv.frames.owner, hv.frames.flags, strict=True) if owner == GUEST and flags & ALLOCATED
    )


def find_free(hv: Hypervisor, order: int) -> int | None:
    """The first of 2**order free frames in a row, on a boundary of as many; None if there are none."""
    # A run of free frames, by the column of owners: one byte a frame.
    wanted = bytes([FREE]) * (1 << order)
    owners, at = hv.frames.owner, 0
    while (at := owners.find(wanted, at)) >= 0:
        aligned = at + (1 << order) - 1 >> order << order
        if owners[aligned : aligned + (1 << order)] == wanted:
            return aligned
        at += 1
    return None


def give(hv: Hypervisor, first: int, order: int, pfn: int | None) -> None:
    """Clear 2**order frames and make them the domain's, at a place in pseudo-physical memory or at none."""
    for index in range(1 << order):
        hv.frames.give(first + index, GUEST)
        # ``scrub_one_page``: what the last owner left must not be seen.
        hv.memory.write(first + index << PAGE_SHIFT, bytes(1 << PAGE_SHIFT))
        hv.set_pfn_of(first + index, NOWHERE if pfn is None else pfn + index & NOWHERE)


OPERATIONS: Final[dict[MemoryOp, Callable[[Hypervisor, Vcpu, Reservation, int], bool]]] = {
    MemoryOp.INCREASE_RESERVATION: _increase,
    MemoryOp.DECREASE_RESERVATION: _decrease,
    MemoryOp.POPULATE_PHYSMAP: _populate,
}
