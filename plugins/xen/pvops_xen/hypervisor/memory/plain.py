"""The page-table stores that a kernel makes by the ten thousand, by a short way.

Nearly all of a Linux's are calls of one element: an entry of a first-level table in use. The rules for such a store
are those of ``update``; what goes before them in ``mmu`` for arrays of any length, of any commands, on behalf of
anybody, comes to some comparisons here. Whatever else is asked is left to ``mmu``, before anything has been changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.faults import GuestFault
from pvops_xen.hypervisor.abi import DOMID_SELF, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from pvops_xen.hypervisor.access import addr_ok
from pvops_xen.hypervisor.memory import update
from pvops_xen.hypervisor.memory.frames import GUEST, FrameType

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_ELEMENT: Final = 16
"""Bytes of an mmu_update_t, of both widths: ptr, whose low bits are the command, and val."""
_LAST: Final = PAGE_SIZE - _ELEMENT
_COMMAND: Final = 7  # MMU_NORMAL_PT_UPDATE is 0
_L1: Final = int(FrameType.L1)


def update_one(hv: Hypervisor, cpu: Vcpu, ureqs: int, pdone: int, foreigndom: int) -> int | None:
    """``mmu_update`` of one element, if it is a normal update of a first-level entry by the domain, for itself.

    Returns:
        0 or a negative errno; None if it is another, and nothing has been done.
    """
    offset = ureqs & PAGE_MASK
    # Anything unusual, a page's end among it, is left to the long way.
    if pdone or foreigndom != DOMID_SELF or offset & 7 or offset > _LAST or not addr_ok(hv.domain.abi, ureqs, _ELEMENT):
        return None
    space, frames = hv.space, hv.frames
    try:
        at = space.translate(cpu, ureqs) >> 3
    except GuestFault:
        return None
    place = space.words[at]
    table, owners = place >> PAGE_SHIFT, frames.owner
    # Bits 0 to 2 are the command: 0 is the normal update.
    if place & _COMMAND or table >= len(owners) or owners[table] != GUEST:
        return None
    if frames.kind[table] != _L1 or not frames.types[table]:
        return None
    error = update.write_entry(hv.validator, place, space.words[at + 1], _L1)
    if not error:
        hv.stats.page_table_updates += 1
    return error
