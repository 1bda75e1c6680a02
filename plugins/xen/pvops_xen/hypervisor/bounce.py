"""Entering the guest's kernel and the way back: bounce frames, mode switches, iret (x86_64/entry.S, pv/iret.c).

A frame is built on the guest kernel's stack as if hardware had pushed it, and the vCPU goes on at the guest's handler.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pvops_core.machine.faults import GuestFault
from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import (
    FLAT_RING1_CS32,
    PAGE_SIZE,
    TRAP_GP_FAULT,
    VGCF_IN_SYSCALL,
    VmAssist,
)
from pvops_xen.hypervisor.access import addr_ok, canonical
from pvops_xen.hypervisor.bounce64 import CLEARED_ON_ENTRY, IF, IOPL, enter64, go_back, saved_flags
from pvops_xen.hypervisor.ldt import load_segments
from pvops_xen.hypervisor.tables import switch_gs

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor
    from pvops_xen.hypervisor.state import Entry

_VM: Final = 1 << 17
_SEGMENTS: Final = ("ds", "es", "fs", "gs")


def in_guest_kernel(hv: Hypervisor, cpu: Vcpu) -> bool:
    """The guest is in kernel mode: by Xen's flag for 64-bit guests, by ring for 32-bit ones."""
    return hv.state(cpu).in_kernel if hv.abi.bits == 64 else cpu.cpl == 1


def enter(
    hv: Hypervisor,
    cpu: Vcpu,
    entry: Entry,
    error_code: int | None = None,
    *,
    failsafe: bool = False,
    selectors: tuple[int, int] | None = None,
) -> None:
    """Push a frame and go on at a handler. A missing handler, or a stack that cannot be written, crashes the domain.

    Args:
        hv: the hypervisor.
        cpu: the vCPU; its RIP is what the guest will return to.
        entry: where to.
        error_code: pushed if not None.
        failsafe: push the data selectors too, as the failsafe callback expects.
        selectors: CS and SS that a 64-bit frame shows instead of the CPU's.
    """
    if not entry.address:
        hv.crash(f"no handler for an entry at {cpu.rip:#x}")
    elif hv.abi.bits == 64:
        enter64(hv, cpu, entry, error_code, failsafe=failsafe, selectors=selectors)
    else:
        _enter32(hv, cpu, entry, error_code, failsafe=failsafe)


def _enter32(hv: Hypervisor, cpu: Vcpu, entry: Entry, error_code: int | None, *, failsafe: bool) -> None:
    state = hv.state(cpu)
    mask = hv.memory.u8(state.info + 1)
    from_user = cpu.cpl == 3
    frame = [cpu.get(name) for name in _SEGMENTS] if failsafe else []
    if error_code is not None:
        frame.append(error_code)
    frame += [cpu.rip, cpu.get("cs") | mask << 16, saved_flags(hv, state, cpu.rflags, mask)]
    if from_user:
        frame += [cpu.rsp, cpu.get("ss")]
    stack, stack_selector = (state.kernel_sp, state.kernel_ss) if from_user else (cpu.rsp, cpu.get("ss"))
    sp = stack - 4 * len(frame)
    if not _push(hv, cpu, sp, struct.pack(f"<{len(frame)}I", *frame), user=False):
        return
    if entry.mask_events:
        hv.memory.set_u8(state.info + 1, 1)
    try:
        load_segments(hv, cpu, 1, entry.cs or FLAT_RING1_CS32, stack_selector)
    except GuestFault as fault:
        hv.crash(f"entry at {entry.address:#x}: {fault.message}")
        return
    cpu.rsp = sp
    cpu.rflags = cpu.rflags & ~(CLEARED_ON_ENTRY | IOPL) | IF
    cpu.rip = entry.address


def _push(hv: Hypervisor, cpu: Vcpu, sp: int, data: bytes, *, user: bool) -> bool:
    """Write a frame with the rights of the guest's kernel; crashes the domain where that fails."""
    if sp < 0 or not addr_ok(hv.abi, sp, len(data)):
        hv.crash(f"create_bounce_frame: stack {sp:#x} is not the guest's")
        return False
    try:
        pieces = []
        at = 0
        while at < len(data):
            size = min(len(data) - at, PAGE_SIZE - (sp + at) % PAGE_SIZE)
            pieces.append((cpu.walk(sp + at, write=True, user=user).pa, data[at : at + size]))
            at += size
    except GuestFault:
        hv.crash(f"create_bounce_frame: fault at stack {sp:#x}")
        return False
    for pa, piece in pieces:
        hv.memory.write(pa, piece)
    return True


def toggle_mode(hv: Hypervisor, cpu: Vcpu) -> None:
    """``toggle_guest_mode``: the other page table and the other GS base (64-bit guests)."""
    state = hv.state(cpu)
    state.in_kernel = not state.in_kernel
    switch_gs(hv, cpu)
    hv.load_cr3(cpu)


def iret(hv: Hypervisor, cpu: Vcpu) -> None:
    """The iret hypercall: leave the kernel by a frame on its stack. What cannot be returned to crashes the domain."""
    if hv.abi.bits == 64:
        _iret64(hv, cpu)
    else:
        _iret32(hv, cpu)


def _set_mask(hv: Hypervisor, cpu: Vcpu, flags: int) -> None:
    hv.memory.set_u8(hv.state(cpu).info + 1, 0 if flags & IF else 1)


def _iret64(hv: Hypervisor, cpu: Vcpu) -> None:
    state = hv.state(cpu)
    stack = cpu.rsp
    try:
        words = struct.unpack("<9Q", access.read(hv, cpu, stack, 72))
    except (access.BadHandleError, GuestFault):
        hv.crash(f"Fault while reading IRET context from guest stack at {stack:#x}")
        return
    rax, r11, rcx, flags, rip, cs, rflags, rsp, ss = words
    to_user = cs & 3 == 3
    if to_user and not state.guest_table_user:
        hv.crash("Guest switching to user mode with no user page tables")
        return
    if hv.domain.assisted(VmAssist.ARCHITECTURAL_IOPL):
        state.iopl = rflags >> 12 & 3
    new_flags = rflags & ~(IOPL | _VM) | IF
    if flags & VGCF_IN_SYSCALL:
        rcx, r11 = rip, new_flags
    _set_mask(hv, cpu, rflags)
    if canonical(hv.abi, rip) and go_back(hv, cpu, (rip, cs, new_flags, rsp, ss), (rax, rcx, r11)):
        return
    if to_user:
        toggle_mode(hv, cpu)
    state.stale_user = True
    for name, value in (("rax", rax), ("rcx", rcx), ("r11", r11)):
        cpu.set(name, value)
    if not _return_to(hv, cpu, (3, cs & 0xFFFF | 3, ss & 0xFFFF | 3), rip=rip, rsp=rsp, flags=new_flags):
        _failsafe(hv, cpu, rip)


def _return_to(hv: Hypervisor, cpu: Vcpu, where: tuple[int, int, int], *, rip: int, rsp: int, flags: int) -> bool:
    """Load (level, CS, SS) and go; False if the selectors or the address cannot be returned to."""
    if not canonical(hv.abi, rip):
        return False
    try:
        load_segments(hv, cpu, *where)
    except GuestFault:
        return False
    cpu.rsp = rsp
    cpu.rflags = flags
    cpu.rip = rip
    return True


def _failsafe(hv: Hypervisor, cpu: Vcpu, rip: int) -> None:
    """Xen's own iret faulted on what the guest asked for: its failsafe callback is told."""
    hv.log(f"iret to {rip:#x} failed")
    enter(hv, cpu, hv.state(cpu).failsafe, failsafe=True)


def _iret32(hv: Hypervisor, cpu: Vcpu) -> None:
    esp = cpu.rsp
    try:
        eax, eip, cs, eflags = struct.unpack("<4I", cpu.read_virtual(esp, 16))
        outer = struct.unpack("<2I", cpu.read_virtual(esp + 16, 8)) if cs & 3 == 3 else None
    except GuestFault:
        hv.crash(f"Fault while reading IRET context from guest stack at {esp:#x}")
        return
    level = cs & 3
    cpu.set("rax", eax)
    if hv.domain.assisted(VmAssist.ARCHITECTURAL_IOPL):
        hv.state(cpu).iopl = eflags >> 12 & 3
    if eflags & _VM:
        _refuse_vm86(hv, cpu, eflags)
        return
    if level == 0:
        hv.crash(f"iret to ring {level} with flags {eflags:#x}")
        return
    _set_mask(hv, cpu, eflags)
    new_esp, ss = outer if outer is not None else (esp + 16, cpu.get("ss"))
    flags = eflags & ~(IOPL | _VM) | IF
    if not _return_to(hv, cpu, (level, cs & 0xFFFF, ss & 0xFFFF), rip=eip, rsp=new_esp, flags=flags):
        _failsafe(hv, cpu, eip)


def _refuse_vm86(hv: Hypervisor, cpu: Vcpu, eflags: int) -> None:
    """There is no virtual-8086 mode: the guest gets #GP as if the first instruction there had, its frame left alone."""
    entry = hv.state(cpu).traps[TRAP_GP_FAULT]
    if not entry.address:
        hv.crash(f"iret to virtual-8086 mode with flags {eflags:#x}, and no handler for #GP")
        return
    cpu.write_virtual(cpu.rsp, bytes(4))  # eax's place becomes the error code
    _set_mask(hv, cpu, 0 if entry.mask_events else eflags)
    cpu.rflags = eflags & ~(CLEARED_ON_ENTRY | IOPL) | IF
    if not _return_to(hv, cpu, (1, entry.cs, cpu.get("ss")), rip=entry.address, rsp=cpu.rsp, flags=cpu.rflags):
        _failsafe(hv, cpu, entry.address)


def deliver_upcall(hv: Hypervisor, cpu: Vcpu) -> None:
    """Enter the guest at its event callback; the upcall is masked from then on."""
    hv.stats.traps["upcall"] += 1
    enter(hv, cpu, hv.state(cpu).event)
