"""The iret hypercall, and any other way in which Xen leaves for a place that the guest names (arch/x86/pv/iret.c).

What the processor refuses when Xen leaves is an exception of the guest's, met at the place where it was to go on:
nothing but the frame tells it apart from one of that place's first instruction (``handle_exception`` behind
``_ASM_PRE_EXTABLE`` in x86_64/entry.S).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.faults import GuestFault, general_protection
from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import (
    FLAT_KERNEL_CS64,
    FLAT_KERNEL_SS64,
    FLAT_USER_CS32,
    TRAP_GP_FAULT,
    VGCF_IN_SYSCALL,
    VmAssist,
)
from pvops_xen.hypervisor.events.upcalls import upcall_due
from pvops_xen.hypervisor.processor.bounce import deliver_upcall, toggle_mode
from pvops_xen.hypervisor.processor.bounce64 import IF, IOPL, NT, RF, TF, VM, go_back
from pvops_xen.hypervisor.processor.ldt import load_segments
from pvops_xen.hypervisor.processor.traps import inject_fault
from pvops_xen.hypervisor.state import ResumePoint
from pvops_xen.public import XEN

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_CONTEXT: Final = {64: XEN["iret_context"].whole("rax", "r11", "rcx", "flags", "rip", "cs", "rflags", "rsp", "ss")}
_WORD: Final = 4
_VM86_FRAME: Final = 10  # words of a frame that virtual-8086 mode is returned to by


def iret(hv: Hypervisor, cpu: Vcpu) -> None:
    """The iret hypercall: leave the kernel by a frame on its stack. A frame that cannot be read crashes the domain."""
    if hv.abi.bits == 64:
        _iret64(hv, cpu)
    else:
        _iret32(hv, cpu)


def leave(hv: Hypervisor, cpu: Vcpu, place: ResumePoint) -> None:
    """Go there, or deliver the exception that this ends in; an upcall that is pending comes before it."""
    cpu.rsp, cpu.rflags, cpu.rip = place.rsp, place.flags, place.rip
    try:
        load_segments(hv, cpu, 3 if hv.abi.bits == 64 else place.cs & 3, place.cs, place.ss)
        if not access.canonical(hv.abi, place.rip):
            raise general_protection(f"{place.rip:#x} is not canonical")
    except GuestFault as fault:
        hv.log(f"iret to {place.cs:04x}:{place.rip:#x} failed")
        if upcall_due(hv, cpu.index):
            deliver_upcall(hv, cpu, (place.cs, place.ss))
        else:
            inject_fault(hv, cpu, fault, (place.cs, place.ss))


def _set_mask(hv: Hypervisor, cpu: Vcpu, flags: int) -> None:
    hv.memory.set_u8(hv.state(cpu).info + hv.abi.upcall_mask, 0 if flags & IF else 1)


def _iret64(hv: Hypervisor, cpu: Vcpu) -> None:
    state = hv.state(cpu)
    stack = cpu.rsp
    try:
        words = access.fetch(hv, cpu, stack, _CONTEXT[64])
    except (access.BadHandleError, GuestFault):
        hv.crash(f"Fault while reading IRET context from guest stack at {stack:#x}")
        return
    rax, r11, rcx, flags, rip, cs, rflags, rsp, ss = words
    # RPL 3 means user mode to a 64-bit guest, whose kernel is in ring 3 as well.
    to_user = cs & 3 == 3
    if to_user and not state.guest_table_user:
        hv.crash("Guest switching to user mode with no user page tables")
        return
    # Kept apart from the processor's flags, whose IOPL stays 0.
    if hv.domain.assisted(VmAssist.ARCHITECTURAL_IOPL):
        state.iopl = rflags >> 12 & 3
    new_flags = rflags & ~(IOPL | VM) | IF
    cs, ss, canonical = cs & 0xFFFF | 3, ss & 0xFFFF | 3, access.canonical(hv.abi, rip)
    if flags & VGCF_IN_SYSCALL:  # by sysret, which knows but two code segments
        rcx, r11 = rip, new_flags
        if canonical:
            cs, ss = FLAT_USER_CS32 if cs == FLAT_USER_CS32 else FLAT_KERNEL_CS64, FLAT_KERNEL_SS64
    _set_mask(hv, cpu, rflags)
    if canonical and go_back(hv, cpu, (rip, cs, new_flags, rsp, ss), (rax, rcx, r11), to_user=to_user):
        return
    if to_user:
        toggle_mode(hv, cpu)
    # As the short way would have left it: what the kernel ran on is stale for the processes.
    state.stale_user = True
    for name, value in (("rax", rax), ("rcx", rcx), ("r11", r11)):
        cpu.set(name, value)
    leave(hv, cpu, ResumePoint(cs, ss, rip, rsp, new_flags))


def _iret32(hv: Hypervisor, cpu: Vcpu) -> None:
    esp = cpu.rsp
    try:
        eax, eip, cs, eflags = struct.unpack("<4I", cpu.read_virtual(esp, 16))
        cpu.set("rax", eax)
        if hv.domain.assisted(VmAssist.ARCHITECTURAL_IOPL):
            hv.state(cpu).iopl = eflags >> 12 & 3
        if eflags & VM:
            _refuse_vm86(hv, cpu, eflags)
            return
        # Ring 1 returns to itself without a new stack (``cs & 2`` tells user mode from kernel).
        new_esp, ss = struct.unpack("<2I", cpu.read_virtual(esp + 16, 8)) if cs & 2 else (esp + 16, cpu.get("ss"))
    except GuestFault:
        hv.crash(f"Fault while reading IRET context from guest stack at {esp:#x}")
        return
    # To ring 0 a guest may never return.
    if not cs & 3:
        hv.crash(f"iret to ring 0 with flags {eflags:#x}")
        return
    _set_mask(hv, cpu, eflags)
    leave(hv, cpu, ResumePoint(cs & 0xFFFF, ss & 0xFFFF, eip, new_esp, eflags & ~(IOPL | VM) | IF))


def _refuse_vm86(hv: Hypervisor, cpu: Vcpu, eflags: int) -> None:
    """There is no virtual-8086 mode: the guest gets #GP as if the first instruction there had, on its kernel's stack.

    Raises:
        GuestFault: one of the two stacks is not there.
    """
    state = hv.state(cpu)
    entry = state.traps[TRAP_GP_FAULT]
    esp = state.kernel_sp - _WORD * _VM86_FRAME & hv.abi.mask
    frame = cpu.read_virtual(cpu.rsp + _WORD, _WORD * (_VM86_FRAME - 1)) if esp != cpu.rsp else b""
    # The nine words behind eax are those of a frame of virtual-8086 mode (``do_iret``).
    cpu.write_virtual(esp, bytes(_WORD) + frame)  # eax's place becomes the error code
    _set_mask(hv, cpu, 0 if entry.mask_events else eflags)
    flags = eflags & ~(VM | RF | NT | TF | IOPL) | IF
    leave(hv, cpu, ResumePoint(entry.cs, state.kernel_ss, entry.address, esp, flags))
