"""Entries into a 64-bit guest's kernel and the way back by iret: the two most frequent changes of the CPU's state.

To the guest both its modes are level 3. To the processor its kernel is level 1, as soon as Xen has entered it once:
that forbids it what level 3 forbids, and the engine keeps the translations of the two modes apart (see
``pvops_core.machine.unicorn.modeswitch``), so that a system call drops none. Where a segment check tells the two levels
apart (a kernel that loads SS, say) the kernel is put to level 3 and the instruction tried again.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pvops_core.machine import packed_segment
from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.machine.cpu.segmentation.segments import Descriptor
from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import FLAT_KERNEL_CS64, FLAT_KERNEL_SS64, PAGE_SHIFT, VmAssist
from pvops_xen.hypervisor.processor.segments import XEN_DESCRIPTORS64

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor
    from pvops_xen.hypervisor.state import EntryPoint, XenVcpuState

IF: Final = 1 << 9
IOPL: Final = 3 << 12
KERNEL_LEVEL: Final = 1
TF, NT, RF, VM, _AC = 1 << 8, 1 << 14, 1 << 16, 1 << 17, 1 << 18
CLEARED_ON_ENTRY: Final = TF | NT | RF | VM | _AC
_FLAGS: Final = 0x3F7FD7  # all flags that there are, CF to ID (Intel SDM volume 1, 3.4.3)
_ALWAYS: Final = 2  # bit 1 of the flags reads as 1
_FIRST_XEN_SELECTOR: Final = 0xE008  # page 14 of the GDT, past its null descriptor
_TABLE_INDICATOR: Final = 4


def _flat(selector: int) -> bytes:
    return packed_segment(selector, Descriptor.of(XEN_DESCRIPTORS64[(selector - _FIRST_XEN_SELECTOR) >> 3]))


_KERNEL_CODE: Final = _flat(FLAT_KERNEL_CS64)
_KERNEL_STACK: Final = _flat(FLAT_KERNEL_SS64)
# What a selector and its descriptor come to, once they have been checked; None: not for the short way.
_loaded: dict[tuple[int, int, bool], bytes | None] = {}


def saved_flags(hv: Hypervisor, state: XenVcpuState, flags: int, mask: int) -> int:
    """RFLAGS as the guest is to see them: IF tells whether upcalls were unmasked."""
    flags &= ~(IF | IOPL)
    # The processor's IOPL is Xen's; the guest is shown its own only if it has asked for that.
    if hv.domain.assisted(VmAssist.ARCHITECTURAL_IOPL):
        flags |= state.iopl << 12
    return flags if mask else flags | IF


def enter64(
    hv: Hypervisor,
    cpu: Vcpu,
    entry: EntryPoint,
    error_code: int | None,
    *,
    selectors: tuple[int, int] | None = None,
    data: tuple[int, ...] = (),
) -> None:
    """Push a frame and go on at a handler; crashes the domain if the stack cannot be written.

    ``selectors`` are the CS and SS that the frame shows instead of the CPU's, ``data`` those of the data segments for
    a frame that has them.
    """
    state = hv.state(cpu)
    # One copy of the state out and one in: each entry costs two calls of the engine.
    level, cs, ss, gs_base = cpu.mode_switch.save()
    cs, ss = selectors or (cs, ss)
    registers = hv.registers[cpu.index]
    rip, rsp, rflags, rcx, r11 = registers.frame.read()
    mask = hv.memory.u8(state.info + hv.abi.upcall_mask)
    frame = [rcx, r11, *data]
    if error_code is not None:
        frame.append(error_code)
    # struct cpu_user_regs: a kernel is told that its level is 0, and the saved mask lies in the four bytes above CS.
    code = (cs & ~3 if state.in_kernel else cs) | mask << 32
    frame += [rip, code, saved_flags(hv, state, rflags, mask), rsp, ss]
    if state.in_kernel:
        # A kernel that has run at level 3 has left translations among the processes'.
        state.stale_user |= level != KERNEL_LEVEL
    else:
        state.in_kernel = True
        state.gs_base_user, gs_base = gs_base, state.gs_base_kernel
        # From user mode: the stack that the guest gave by ``stack_switch``, and its own GS base.
        rsp = state.kernel_sp
    # As the processor aligns its own frames (Intel SDM volume 3, 6.14.2).
    sp = (rsp & ~0xF) - 8 * len(frame)
    if not _push(hv, cpu, sp, struct.pack(f"<{len(frame)}Q", *frame)):
        return
    if entry.mask_events:
        # Masked before the guest can run: the next event must wait for its handler.
        hv.memory.set_u8(state.info + hv.abi.upcall_mask, 1)
    cpu.mode_switch.commit(
        KERNEL_LEVEL, _KERNEL_CODE, _KERNEL_STACK, root=state.guest_table << PAGE_SHIFT, gs_base=gs_base
    )
    registers.place.write(sp, (rflags & ~(CLEARED_ON_ENTRY | IOPL) | IF) & _FLAGS | _ALWAYS)
    cpu.rip = entry.address


def _push(hv: Hypervisor, cpu: Vcpu, sp: int, data: bytes) -> bool:
    """Write a frame with the rights of the guest's kernel; crashes the domain where that fails."""
    if sp < 0 or not access.addr_ok(hv.abi, sp, len(data)):
        hv.crash(f"create_bounce_frame: stack {sp:#x} is not the guest's")
        return False
    try:
        access.write(hv, cpu, sp, data)
    except GuestFault:
        hv.crash(f"create_bounce_frame: fault at stack {sp:#x}")
        return False
    return True


def go_back(
    hv: Hypervisor, cpu: Vcpu, frame: tuple[int, ...], registers: tuple[int, int, int], *, to_user: bool
) -> bool:
    """Return to (RIP, CS, RFLAGS, RSP, SS) with RAX, RCX and R11 set.

    False, and nothing changed, if a selector is none that can be loaded without a closer look.
    """
    rip, cs, rflags, rsp, ss = frame
    state = hv.state(cpu)
    code, stack = _load(hv, state, cs, code=True), _load(hv, state, ss, code=False)
    if code is None or stack is None:
        return False
    level, _, _, gs_base = cpu.mode_switch.save()
    # What ran at level 3 meanwhile may have changed pages that the processes' translations are of.
    state.stale_user |= level != KERNEL_LEVEL
    root = state.guest_table
    if to_user:
        state.in_kernel = False
        state.gs_base_kernel, gs_base = gs_base, state.gs_base_user
        root = state.guest_table_user
    cpu.mode_switch.commit(3 if to_user else KERNEL_LEVEL, code, stack, root=root << PAGE_SHIFT, gs_base=gs_base)
    if to_user and state.stale_user:
        state.stale_user = False
        cpu.flush_tlb()
    hv.registers[cpu.index].back.write(rsp, rflags & _FLAGS | _ALWAYS, *registers)
    cpu.rip = rip
    return True


def _load(hv: Hypervisor, state: XenVcpuState, selector: int, *, code: bool) -> bytes | None:
    """A selector of the GDT with its descriptor, ready for the CPU; None if the long way must decide."""
    selector &= 0xFFFF
    # LDT selectors, and any that is not plain, go the long way.
    if selector & _TABLE_INDICATOR:
        return None
    index = selector >> 3
    # Xen's own page of the GDT has the same descriptors for every guest.
    if selector >= _FIRST_XEN_SELECTOR:
        index -= _FIRST_XEN_SELECTOR >> 3
        raw = XEN_DESCRIPTORS64[index] if index < len(XEN_DESCRIPTORS64) else 0
    elif index < state.gdt_ents:
        raw = hv.memory.u64((state.gdt_frames[index >> 9] << PAGE_SHIFT) + (index & 511) * 8)
    else:
        return None
    # Descriptors change seldom; what one comes to is kept by its bits.
    key = selector, raw, code
    if key not in _loaded:
        descriptor = Descriptor.of(raw)
        fits = descriptor.long and not descriptor.big if code else descriptor.writable_data
        # At level 3 to the guest, whatever level it has to the processor.
        good = fits and descriptor.present and descriptor.dpl == 3
        _loaded[key] = packed_segment(selector, descriptor) if good else None
    return _loaded[key]


def raise_kernel(hv: Hypervisor, cpu: Vcpu) -> None:
    """A guest's kernel runs for the first time, or left its segments by syscall: level 1 to the processor, flat."""
    state = hv.state(cpu)
    # A guest's kernel that never was entered runs at level 3 yet.
    level, _, _, gs_base = cpu.mode_switch.save()
    state.stale_user |= level != KERNEL_LEVEL
    cpu.mode_switch.commit(
        KERNEL_LEVEL, _KERNEL_CODE, _KERNEL_STACK, root=state.guest_table << PAGE_SHIFT, gs_base=gs_base
    )


def lower_kernel(hv: Hypervisor, cpu: Vcpu) -> bool:
    """The guest's kernel met a fault that depends on levels: put it to level 3, to try again. False if it was there."""
    state = hv.state(cpu)
    if hv.abi.bits == 32 or not state.in_kernel or cpu.mode_switch.save()[0] != KERNEL_LEVEL:
        return False
    cpu.mode_switch.commit_user()
    cpu.flush_tlb()
    state.stale_user = True
    # RIP is written so that the engine leaves the block that was translated for the old level.
    cpu.rip = cpu.rip
    return True
