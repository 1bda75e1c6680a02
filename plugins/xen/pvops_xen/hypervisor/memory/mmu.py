"""The hypercalls that store into page tables, mmu_update and update_va_mapping (xen/arch/x86/mm.c).

How an array of requests is gone through, and preempted, stands here too: mmuext_op has one as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.faults import GuestFault
from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import (
    DOMID_IO,
    DOMID_SELF,
    DOMID_XEN,
    EFAULT,
    EINVAL,
    ENOSYS,
    EPERM,
    ERESTART,
    ESRCH,
    PAGE_MASK,
    PAGE_SHIFT,
    PAGE_SIZE,
    UVMF_ALL,
    UVMF_FLUSHTYPE_MASK,
    UVMF_INVLPG,
    UVMF_TLB_FLUSH,
    MmuUpdate,
)
from pvops_xen.hypervisor.memory import update
from pvops_xen.hypervisor.memory.frames import GUEST, FrameType
from pvops_xen.hypervisor.memory.walk import guest_l1e
from pvops_xen.hypervisor.policy import L1_FRAME_REFUSED
from pvops_xen.public import XEN

if TYPE_CHECKING:
    import struct

    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

PREEMPTED: Final = 1 << 31  # MMU_UPDATE_PREEMPTED, in the count: these are the rest of a call (asm/hypercall.h)
_CHUNK: Final = 32
_STRETCH: Final = 4096
"""Elements of an array after which a hypercall is preempted: it is made again with the rest."""
_DOM0: Final = 0
_ELEMENT: Final = 16
"""Bytes of an mmu_update_t, of both widths: ptr, whose low bits are the command, and val."""
_LAST: Final = PAGE_SIZE - _ELEMENT
_COMMAND: Final = 7  # MMU_NORMAL_PT_UPDATE is 0
_L1: Final = int(FrameType.L1)
_UPDATE: Final = XEN["mmu_update"].whole("ptr", "val")
_STORES: Final = frozenset(
    {MmuUpdate.NORMAL_PT_UPDATE, MmuUpdate.PT_UPDATE_PRESERVE_AD, MmuUpdate.PT_UPDATE_NO_TRANSLATE}
)


def signed32(value: int) -> int:
    """An int, from the register that holds it: a preempted call's result goes where its foreign domain was."""
    return (value & 0xFFFF_FFFF ^ 1 << 31) - (1 << 31)  # turned and set back, the top bit counts as negative


def owner_error(hv: Hypervisor, foreigndom: int) -> int:
    """``get_pg_owner`` and the right to use it: 0, -ESRCH or -EPERM."""
    if foreigndom in {DOMID_SELF, DOMID_IO}:
        return 0
    if foreigndom == hv.domain.domid:
        hv.log("Cannot specify itself as foreign domain")
        return -ESRCH
    if foreigndom in {_DOM0, DOMID_XEN}:
        return -EPERM
    hv.log(f"Unknown domain d{foreigndom}")
    return -ESRCH


def _report_done(hv: Hypervisor, cpu: Vcpu, pdone: int, done: int) -> None:
    """Tell the guest how many were done; a bad pointer for that is ignored, as Xen ignores it."""
    if not pdone:
        return
    try:
        access.write_u32(hv, cpu, pdone, done)
    except (access.BadHandleError, GuestFault):
        return


def _chunk(hv: Hypervisor, cpu: Vcpu, address: int, count: int, size: int) -> bytes:
    """Some elements of a guest's array; only the first if they cannot all be read."""
    try:
        return access.read(hv, cpu, address, count * size)
    except GuestFault:
        return access.read(hv, cpu, address, size)


def _done_before(hv: Hypervisor, cpu: Vcpu, pdone: int) -> int:
    """How many a preempted call had done, by the guest's own memory."""
    try:
        return access.read_u32(hv, cpu, pdone) if pdone else 0
    except (access.BadHandleError, GuestFault):
        return 0


def run_array(
    hv: Hypervisor, cpu: Vcpu, array: tuple[int, int, struct.Struct], rest: tuple[int, int], act: Callable[..., int]
) -> int:
    """Apply ``act`` to the fields of each element of (address, count, layout) up to the first error.

    The guest is told how many were done. After _STRETCH elements the call is preempted.

    Args:
        hv: the hypervisor.
        cpu: the caller.
        array: where the elements are, how many (with PREEMPTED if the call goes on), and what they look like.
        rest: the call's other arguments: where the number done goes, and the foreign domain.
        act: handles one element.
    """
    address, count, layout = array
    size, pdone = layout.size, rest[0]
    before = _done_before(hv, cpu, pdone) if count & PREEMPTED else 0
    count &= ~PREEMPTED
    limit = min(count, _STRETCH)
    done = error = 0
    try:
        while done < limit and not error:
            data = _chunk(hv, cpu, address + done * size, min(_CHUNK, limit - done), size)
            for fields in layout.iter_unpack(data):
                error = act(*fields)
                if error:
                    break
                done += 1
    except (access.BadHandleError, GuestFault):
        # What was done before the fault stays done, and counts.
        error = -EFAULT
    if pdone:
        _report_done(hv, cpu, pdone, before + done & 0xFFFF_FFFF)
    # ``hypercall_create_continuation``: the guest's registers hold the rest, and it may take an interrupt between.
    if not error and done < count:
        hv.continuation = (address + done * size, (count - done) | PREEMPTED, *rest)
        return -ERESTART
    return error


def update_one(hv: Hypervisor, cpu: Vcpu, ureqs: int, pdone: int, foreigndom: int) -> int | None:
    """``mmu_update`` of one element, if it is a normal update of a first-level entry by the domain, for itself.

    Nearly all of a Linux's are, by the ten thousand: what goes before the rules of ``update`` comes to some
    comparisons.

    Returns:
        0 or a negative errno; None if it is another, and nothing has been done.
    """
    offset = ureqs & PAGE_MASK
    # Anything unusual, a page's end among it, is left to the long way.
    if (
        pdone
        or foreigndom != DOMID_SELF
        or offset & 7
        or offset > _LAST
        or not access.addr_ok(hv.domain.abi, ureqs, _ELEMENT)
    ):
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


def mmu_update(hv: Hypervisor, cpu: Vcpu, ureqs: int, count: int, pdone: int, foreigndom: int) -> int:
    """``mmu_update(reqs, count, done_out, foreigndom)``: an array of checked stores to page tables."""
    if count == 1 and (plainly := update_one(hv, cpu, ureqs, pdone, foreigndom)) is not None:
        return plainly
    # The last step of a continuation carries its result in the domain's place (MMU_UPDATE_PREEMPTED without
    # requests).
    if count == PREEMPTED and not ureqs:
        return signed32(foreigndom)
    layout = _UPDATE.at(hv.abi.bits).form
    access.check(hv.abi, ureqs, (count & ~PREEMPTED) * layout.size)
    # do_mmu_update: the high half is who owns the tables, plus one; 0 is the caller. The low half owns the frames.
    table_owner = (foreigndom >> 16 & 0xFFFF) - 1
    if table_owner not in {-1, _DOM0, hv.domain.domid}:
        return -ESRCH
    error = owner_error(hv, foreigndom & 0xFFFF)
    # Even a caller without a right is told that nothing was done.
    if error == -ESRCH:
        _report_done(hv, cpu, pdone, _done_before(hv, cpu, pdone) if count & PREEMPTED else 0)
        return error
    io_only = foreigndom & 0xFFFF == DOMID_IO
    forbidden = bool(error) or table_owner == _DOM0  # which each request finds out for itself

    def act(ptr: int, val: int) -> int:
        if forbidden:
            return -ENOSYS if ptr & 7 > MmuUpdate.PT_UPDATE_NO_TRANSLATE else -EPERM
        return _one_update(hv, ptr, val, io_only=io_only)

    return run_array(hv, cpu, (ureqs, count, layout), (pdone, foreigndom), act)


def _one_update(hv: Hypervisor, ptr: int, val: int, *, io_only: bool) -> int:
    command, address = ptr & 7, ptr & ~7  # entries are aligned, and the low bits of an address say what is to be done
    if command == MmuUpdate.MACHPHYS_UPDATE:
        return _machphys_update(hv, ptr >> PAGE_SHIFT, val, io_only=io_only)
    if command not in _STORES:
        return -ENOSYS
    if io_only and (error := _io_update(hv, address >> PAGE_SHIFT, val)):
        return error
    error = update.write_word(hv.validator, address, val, preserve_ad=command == MmuUpdate.PT_UPDATE_PRESERVE_AD)
    if not error:
        hv.stats.page_table_updates += 1
    return error


def _io_update(hv: Hypervisor, table: int, val: int) -> int:
    """Whether an entry may name a frame that the caller calls an I/O frame: never above L1, nor RAM."""
    kind = hv.frames.in_use_as(table) if hv.frames.is_guests(table) else FrameType.NONE
    # Only a first-level entry may name a frame that is no memory (``get_page_from_l1e``).
    if kind in {FrameType.L2, FrameType.L3, FrameType.L4}:
        return -EINVAL
    is_ram = val & 1 and hv.frames.is_guests((val & 0x000F_FFFF_FFFF_F000) >> PAGE_SHIFT)
    return L1_FRAME_REFUSED if is_ram and kind == FrameType.L1 else 0


def _machphys_update(hv: Hypervisor, mfn: int, pfn: int, *, io_only: bool) -> int:
    if io_only or not hv.frames.is_guests(mfn):
        hv.log(f"Could not get page for mach->phys update: {mfn:x}")
        return -EINVAL
    hv.set_pfn_of(mfn, pfn)
    return 0


def update_va_mapping(hv: Hypervisor, cpu: Vcpu, va: int, value: int, flags: int) -> int:
    """``update_va_mapping(va, val, flags)``: change the L1 entry that maps an address, then flush as told."""
    # The guest names an address, not an entry: it must be mapped by a table that is in use.
    error = -EINVAL
    address = guest_l1e(hv, cpu.index, va)
    # Held while it is written, so that nobody demotes it meanwhile.
    if address is not None and hv.frames.get_page(address >> PAGE_SHIFT):
        if hv.frames.in_use_as(address >> PAGE_SHIFT) == FrameType.L1:
            error = update.modify(hv.validator, address, value)
        hv.frames.put_page(address >> PAGE_SHIFT)
    if error:
        return error
    hv.stats.page_table_updates += 1
    return _flush_after_update(hv, cpu, va, flags)


def _flush_after_update(hv: Hypervisor, cpu: Vcpu, va: int, flags: int) -> int:
    """What the flags ask for; one that asks for both kinds of flush gets none, as in Xen."""
    kind = flags & UVMF_FLUSHTYPE_MASK
    # UVMF_NONE, or both: ``do_update_va_mapping`` knows three values.
    if kind not in {UVMF_TLB_FLUSH, UVMF_INVLPG}:
        return 0
    where = flags & ~UVMF_FLUSHTYPE_MASK
    if where == 0:
        vcpus: int | None = 1 << cpu.index
    elif where == UVMF_ALL:
        vcpus = None
    else:
        try:
            vcpus = read_vcpu_mask(hv, cpu, where)
        except (access.BadHandleError, GuestFault):
            return -EFAULT
    hv.flush_tlb(vcpus, va if kind == UVMF_INVLPG else None)
    return 0


def update_va_mapping_otherdomain(hv: Hypervisor, cpu: Vcpu, va: int, value: int, flags: int, domid: int) -> int:
    """The same for frames of another domain: an unprivileged caller may name only itself."""
    error = owner_error(hv, domid & 0xFFFF)
    if domid & 0xFFFF == DOMID_IO:
        error = -EPERM
    return error or update_va_mapping(hv, cpu, va, value, flags)


def read_vcpu_mask(hv: Hypervisor, cpu: Vcpu, address: int) -> int:
    """A bitmap of vCPUs in guest memory, in words of the guest's width; only the words that matter are read."""
    mask = 0
    bits = hv.abi.bits
    for index in range((len(hv.domain.vcpus) + bits - 1) // bits):
        mask |= access.read_word(hv, cpu, address + index * hv.abi.word) << (index * bits)
    return mask & (1 << len(hv.domain.vcpus)) - 1
