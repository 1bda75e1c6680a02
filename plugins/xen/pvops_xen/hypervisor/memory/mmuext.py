"""The hypercall mmuext_op: pinning, base pointers, flushes, the LDT, whole pages (xen/arch/x86/mm.c)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.faults import GuestFault
from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import (
    DOMID_SELF,
    EACCES,
    EINVAL,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    PAGE_SHIFT,
    PAGE_SIZE,
    MmuExt,
)
from pvops_xen.hypervisor.memory.frames import PINNED, FrameType
from pvops_xen.hypervisor.memory.mmu import PREEMPTED, owner_error, read_vcpu_mask, run_array, signed32
from pvops_xen.hypervisor.processor.ldt import set_ldt, unmap_ldt
from pvops_xen.public import XEN

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_OPERATION: Final = XEN["mmuext_op"].whole("cmd", "arg1.mfn", "arg2.src_mfn")


def mmuext_op(hv: Hypervisor, cpu: Vcpu, uops: int, count: int, pdone: int, foreigndom: int) -> int:
    """``mmuext_op(ops, count, done_out, foreigndom)``: pinning, base pointers, flushes, the LDT."""
    if count == PREEMPTED and not uops:
        return signed32(foreigndom)
    layout = _OPERATION.at(hv.abi.bits).form
    access.check(hv.abi, uops, (count & ~PREEMPTED) * layout.size)
    error = owner_error(hv, foreigndom & 0xFFFF)
    if error or foreigndom & 0xFFFF != DOMID_SELF:
        return error or -EPERM

    def act(command: int, arg1: int, arg2: int) -> int:
        handler = _EXTENDED.get(command)
        return handler(hv, cpu, arg1, arg2) if handler else -ENOSYS

    return run_array(hv, cpu, (uops, count, layout), (pdone, foreigndom), act)


def _pin(kind: FrameType) -> Callable[[Hypervisor, Vcpu, int, int], int]:
    def pin(hv: Hypervisor, cpu: Vcpu, mfn: int, arg2: int) -> int:
        del cpu, arg2
        if kind == FrameType.L4 and hv.abi.bits == 32:
            return 0  # there is no such level; Xen ignores it
        frames, validator = hv.frames, hv.validator
        if not frames.get_page(mfn):
            return -EINVAL
        error = validator.get_type(mfn, kind)
        if error:
            hv.log(f"Error {error} while pinning mfn {mfn:x}")
            frames.put_page(mfn)
            return error
        # Pinned once is pinned: the reference of this attempt is given back.
        if frames.flags[mfn] & PINNED:
            hv.log(f"mfn {mfn:x} already pinned")
            validator.put_page_and_type(mfn)
            return -EINVAL
        frames.flags[mfn] |= PINNED
        return 0

    return pin


def _unpin(hv: Hypervisor, cpu: Vcpu, mfn: int, arg2: int) -> int:
    del cpu, arg2
    # The owner is asked first, since the pin of another's frame is nobody's business here.
    if not hv.frames.is_guests(mfn):
        hv.log(f"mfn {mfn:x} bad, or bad owner d{hv.domain.domid}")
        return -EINVAL
    if not hv.frames.flags[mfn] & PINNED:
        hv.log(f"mfn {mfn:x} not pinned")
        return -EINVAL
    # The flag goes before the reference, so that nobody finds a pin without one.
    hv.frames.flags[mfn] &= ~PINNED
    hv.validator.put_page_and_type(mfn)
    return 0


def root_type(bits: int) -> FrameType:
    """Type of a root page table: L4, or L3 with PAE."""
    return FrameType.L4 if bits == 64 else FrameType.L3


def new_guest_cr3(hv: Hypervisor, cpu: Vcpu, mfn: int, arg2: int = 0) -> int:
    """Run kernel mode on another root: the new one gains a reference before the old one loses its own."""
    del arg2
    state = hv.state(cpu)
    old = state.guest_table
    if old != mfn:
        # The new one first: the old one's last reference would otherwise demote tables that both have.
        error = hv.validator.get_page_and_type(mfn, root_type(hv.abi.bits))
        if error:
            hv.log(f"Error while installing new baseptr {mfn:x}")
            return error
        unmap_ldt(hv, cpu)  # its pages were looked up in the old space (invalidate_shadow_ldt)
        state.guest_table = mfn
    hv.stats.flushes += 1
    # On this vCPU alone: others may go on running on the old root.
    hv.load_cr3(cpu)
    if old and old != mfn:
        hv.validator.put_page_and_type(old)
    return 0


def _new_user_baseptr(hv: Hypervisor, cpu: Vcpu, mfn: int, arg2: int) -> int:
    del arg2
    # A PAE guest has one root for both modes.
    if hv.abi.bits == 32:
        return -EINVAL
    state = hv.state(cpu)
    old = state.guest_table_user
    # The same root again is taken once, and its reference is not given back.
    if old == mfn:
        return 0
    if mfn:
        error = hv.validator.get_page_and_type(mfn, FrameType.L4)
        if error:
            hv.log(f"Error {error} installing new mfn {mfn:x}")
            return error
    state.guest_table_user = mfn
    state.stale_user = True  # it is loaded when the vCPU next goes to user mode
    if old:
        hv.validator.put_page_and_type(old)
    return 0


def _flush(hv: Hypervisor, vcpus: int | None, address: int | None = None) -> int:
    """Flush on vCPUs of a mask, or on all; of an address that no guest may have nothing."""
    # ``do_mmuext_op`` asks ``__addr_ok`` first.
    if address is None or access.addr_ok(hv.abi, address):
        hv.flush_tlb(vcpus, address)
    return 0


def _flush_masked(hv: Hypervisor, cpu: Vcpu, mask: int, address: int | None) -> int:
    try:
        vcpus = read_vcpu_mask(hv, cpu, mask)
    except (access.BadHandleError, GuestFault):
        return -EINVAL
    return _flush(hv, vcpus, address)


def _invlpg_local(hv: Hypervisor, cpu: Vcpu, address: int, arg2: int) -> int:
    del arg2
    hv.flush_tlb(1 << cpu.index, address)
    return 0


def _clear_page(hv: Hypervisor, cpu: Vcpu, mfn: int, arg2: int) -> int:
    del cpu, arg2
    return _write_page(hv, mfn, bytes(PAGE_SIZE))


def _copy_page(hv: Hypervisor, cpu: Vcpu, mfn: int, source: int) -> int:
    del cpu
    if not hv.frames.is_guests(source):
        hv.log(f"Error copying from mfn {source:x}")
        return -EINVAL
    return _write_page(hv, mfn, hv.memory.read(source << PAGE_SHIFT, PAGE_SIZE))


def _write_page(hv: Hypervisor, mfn: int, data: bytes) -> int:
    # A frame that is a page table could not be written plainly.
    if hv.validator.get_page_and_type(mfn, FrameType.WRITABLE):
        hv.log(f"Error writing mfn {mfn:x}")
        return -EINVAL
    hv.memory.write(mfn << PAGE_SHIFT, data)
    hv.validator.put_page_and_type(mfn)
    return 0


_EXTENDED: Final[dict[int, Callable[[Hypervisor, Vcpu, int, int], int]]] = {
    MmuExt.PIN_L1_TABLE: _pin(FrameType.L1),
    MmuExt.PIN_L2_TABLE: _pin(FrameType.L2),
    MmuExt.PIN_L3_TABLE: _pin(FrameType.L3),
    MmuExt.PIN_L4_TABLE: _pin(FrameType.L4),
    MmuExt.UNPIN_TABLE: _unpin,
    MmuExt.NEW_BASEPTR: new_guest_cr3,
    MmuExt.TLB_FLUSH_LOCAL: lambda hv, cpu, _arg1, _arg2: _flush(hv, 1 << cpu.index),
    MmuExt.INVLPG_LOCAL: _invlpg_local,
    MmuExt.TLB_FLUSH_MULTI: lambda hv, cpu, _arg1, mask: _flush_masked(hv, cpu, mask, None),
    MmuExt.INVLPG_MULTI: lambda hv, cpu, address, mask: _flush_masked(hv, cpu, mask, address),
    MmuExt.TLB_FLUSH_ALL: lambda hv, _cpu, _arg1, _arg2: _flush(hv, None),
    MmuExt.INVLPG_ALL: lambda hv, _cpu, address, _arg2: _flush(hv, None, address),
    MmuExt.FLUSH_CACHE: lambda *_call: -EACCES,  # only domains with devices may
    MmuExt.SET_LDT: set_ldt,
    MmuExt.NEW_USER_BASEPTR: _new_user_baseptr,
    MmuExt.CLEAR_PAGE: _clear_page,
    MmuExt.COPY_PAGE: _copy_page,
    MmuExt.FLUSH_CACHE_GLOBAL: lambda *_call: -EINVAL,
    MmuExt.MARK_SUPER: lambda *_call: -EOPNOTSUPP,
    MmuExt.UNMARK_SUPER: lambda *_call: -EOPNOTSUPP,
}
