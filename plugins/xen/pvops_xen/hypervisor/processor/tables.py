"""Hypercalls for descriptor tables, the kernel's stack and segment bases (xen/arch/x86/pv)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.x86 import CR0_TS, MSR_FS_BASE, MSR_GS_BASE
from pvops_xen.hypervisor import access, policy
from pvops_xen.hypervisor.abi import (
    EINVAL,
    ENOSYS,
    FIRST_RESERVED_GDT_ENTRY,
    PAGE_SHIFT,
    Segbase,
)
from pvops_xen.hypervisor.memory.frames import FrameType
from pvops_xen.hypervisor.processor.callbacks import guest_selector
from pvops_xen.hypervisor.processor.descriptors import check_descriptor
from pvops_xen.hypervisor.processor.ldt import data_descriptor
from pvops_xen.hypervisor.processor.segments import install_gdt

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_CR4_OBEYED: Final = 1 << 2 | 1 << 3  # TSD, DE


def set_gdt(hv: Hypervisor, cpu: Vcpu, frame_list: int, entries: int) -> int:
    """``set_gdt(frames, entries)``: the frames must pass as descriptor pages; the old ones are given up."""
    # FIRST_RESERVED_GDT_ENTRY: behind them is Xen's own page.
    if entries > FIRST_RESERVED_GDT_ENTRY:
        return -EINVAL
    count = (entries + 511) // 512  # 512 descriptors a page
    raw = access.read(hv, cpu, frame_list, count * hv.abi.word)
    word = hv.abi.word
    frames = [int.from_bytes(raw[i * word : (i + 1) * word], "little") for i in range(count)]
    return load_gdt(hv, cpu, frames, entries)


def load_gdt(hv: Hypervisor, cpu: Vcpu, frames: list[int], entries: int) -> int:
    """``pv_set_gdt``: take a list of frames as a vCPU's GDT. 0, or -EINVAL with nothing changed."""
    # All of the new ones are taken before any of the old is given up (pv_set_gdt), so a refusal leaves the old table.
    taken: list[int] = []
    for mfn in frames:
        if hv.validator.get_page_and_type(mfn, FrameType.SEG_DESC):
            for earlier in taken:
                hv.validator.put_page_and_type(earlier)
            # Nothing of a refused list stays taken.
            return -EINVAL
        taken.append(mfn)
    state = hv.state(cpu)
    for mfn in state.gdt_frames:
        hv.validator.put_page_and_type(mfn)
    state.gdt_frames, state.gdt_ents = list(frames), entries
    install_gdt(hv, cpu, frames)
    return 0


def update_descriptor(hv: Hypervisor, cpu: Vcpu, address: int, descriptor: int) -> int:
    """``update_descriptor(maddr, desc)``: one checked store to a descriptor table, or to any writable frame."""
    del cpu
    checked = check_descriptor(descriptor, hv.abi.bits)
    mfn = address >> PAGE_SHIFT
    # A descriptor is 8 bytes, and Xen stores it whole.
    if address & 7 or checked is None or not hv.frames.get_page(mfn):
        return -EINVAL
    try:
        # A descriptor page has its type already; a frame that may be written gets one for a moment.
        in_table = hv.frames.in_use_as(mfn) == FrameType.SEG_DESC
        kind = FrameType.SEG_DESC if in_table else FrameType.WRITABLE
        if hv.validator.get_type(mfn, kind):
            return -EINVAL
        hv.memory.set_u64(address, checked)
        hv.validator.put_type(mfn)
        return 0
    finally:
        hv.frames.put_page(mfn)


def stack_switch(hv: Hypervisor, cpu: Vcpu, ss: int, sp: int) -> int:
    """``stack_switch(ss, sp)``: the stack for entries from user mode, at the kernel's ring (``do_stack_switch``)."""
    state = hv.state(cpu)
    state.kernel_ss = guest_selector(hv.abi.bits, ss & 0xFFFF)
    state.kernel_sp = sp
    return 0


def set_segment_base(hv: Hypervisor, cpu: Vcpu, which: int, base: int) -> int:
    """``set_segment_base(which, base)``, 64-bit guests only; in kernel mode, so the kernel's GS is live."""
    if hv.abi.bits == 32:
        return -ENOSYS
    state = hv.state(cpu)
    if which == Segbase.GS_USER_SEL:
        _load_user_gs(hv, cpu, base & 0xFFFF)
        return 0
    # ``do_set_segment_base``: a base that is no address is refused for every segment.
    if which not in {Segbase.FS, Segbase.GS_USER, Segbase.GS_KERNEL} or not access.canonical(hv.abi, base):
        return -EINVAL
    if which == Segbase.FS:
        state.fs_base = base
        cpu.set_msr(MSR_FS_BASE, base)
    elif which == Segbase.GS_USER:
        state.gs_base_user = base
    else:
        state.gs_base_kernel = base
        cpu.set_msr(MSR_GS_BASE, base)
    return 0


def _load_user_gs(hv: Hypervisor, cpu: Vcpu, selector: int) -> None:
    """A selector for the processes' GS, whose base becomes theirs; one that cannot be loaded becomes a null one."""
    state = hv.state(cpu)
    state.gs_base_user = 0
    # A null selector that is there already: nothing is loaded, and the base is gone
    if selector <= 3 and cpu.get("gs") == selector:
        return
    descriptor = data_descriptor(hv, cpu, selector | 3) if selector > 3 else None
    if descriptor is not None:
        state.gs_base_user = descriptor.base
    # The base that is live belongs to the kernel, and a load of the selector would change it.
    live = cpu.msr(MSR_GS_BASE)
    cpu.load_segment("gs", 0 if descriptor is None else selector | 3)
    cpu.set_msr(MSR_GS_BASE, live)


def switch_gs(hv: Hypervisor, cpu: Vcpu) -> None:
    """The guest changed mode: the live base is put away, the other mode's is made live (``toggle_guest_mode``)."""
    state = hv.state(cpu)
    live = cpu.msr(MSR_GS_BASE)
    if state.in_kernel:  # it has just come from user mode
        state.gs_base_user = live
        cpu.set_msr(MSR_GS_BASE, state.gs_base_kernel)
    else:
        state.gs_base_kernel = live
        cpu.set_msr(MSR_GS_BASE, state.gs_base_user)


def fpu_taskswitch(hv: Hypervisor, cpu: Vcpu, set_ts: int) -> int:
    """``fpu_taskswitch(set)``: CR0.TS, so that the next use of the FPU traps."""
    load_task_switched(hv, cpu, set_ts=bool(set_ts))
    return 0


def load_task_switched(hv: Hypervisor, cpu: Vcpu, *, set_ts: bool) -> None:
    """CR0.TS of the guest and of its CPU."""
    state = hv.state(cpu)
    # Both: the guest reads its own, and the processor must trap.
    state.cr0 = state.cr0 & ~CR0_TS | CR0_TS * set_ts
    cpu.cr0 = cpu.cr0 & ~CR0_TS | CR0_TS * set_ts


def load_cr4(hv: Hypervisor, cpu: Vcpu, value: int) -> None:
    """CR4 of the guest, and the bits of it that its CPU obeys: who may read the clock, and breakpoints on ports."""
    state = hv.state(cpu)
    # ``pv_fixup_guest_cr4``: the rest of CR4 stays Xen's.
    state.cr4 = policy.guest_cr4(value)
    cpu.cr4 = cpu.cr4 & ~_CR4_OBEYED | state.cr4 & _CR4_OBEYED
    cpu.debug.refresh()
