"""Entering the guest's kernel: bounce frames and mode switches (x86_64/entry.S, x86_64/compat/entry.S).

A frame is built on the guest kernel's stack as if hardware had pushed it, and the vCPU goes on at the guest's handler.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pvops_core.machine.cpu.faults import GuestFault
from pvops_xen.hypervisor.abi import FLAT_RING1_DS32, PAGE_SIZE
from pvops_xen.hypervisor.access import addr_ok
from pvops_xen.hypervisor.processor.bounce64 import IF, IOPL, NT, RF, TF, VM, enter64, saved_flags
from pvops_xen.hypervisor.processor.ldt import load_segments
from pvops_xen.hypervisor.processor.tables import switch_gs

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor
    from pvops_xen.hypervisor.state import EntryPoint


def in_guest_kernel(hv: Hypervisor, cpu: Vcpu) -> bool:
    """The guest is in kernel mode: by Xen's flag for 64-bit guests, by ring for 32-bit ones."""
    return hv.state(cpu).in_kernel if hv.abi.bits == 64 else cpu.cpl == 1


def enter(
    hv: Hypervisor,
    cpu: Vcpu,
    entry: EntryPoint,
    error_code: int | None = None,
    *,
    selectors: tuple[int, int] | None = None,
    data: tuple[int, ...] = (),
) -> None:
    """Push a frame and go on at a handler. A missing handler, or a stack that cannot be written, crashes the domain.

    Args:
        hv: the hypervisor.
        cpu: the vCPU; its RIP is what the guest will return to.
        entry: where to.
        error_code: pushed if not None.
        selectors: CS and SS that the frame shows instead of the CPU's.
        data: selectors of DS, ES, FS and GS, as the failsafe callback gets them.
    """
    if entry.missing(hv.abi.bits):
        hv.crash(f"no handler for an entry at {cpu.rip:#x}")
    elif hv.abi.bits == 64:
        enter64(hv, cpu, entry, error_code, selectors=selectors, data=data)
    else:
        _enter32(hv, cpu, entry, error_code, selectors=selectors, data=data)


def _enter32(
    hv: Hypervisor,
    cpu: Vcpu,
    entry: EntryPoint,
    error_code: int | None,
    *,
    selectors: tuple[int, int] | None,
    data: tuple[int, ...],
) -> None:
    state = hv.state(cpu)
    mask = hv.memory.u8(state.info + hv.abi.upcall_mask)
    cs, ss = selectors or (cpu.get("cs"), cpu.get("ss"))
    # Bit 1 of the ring tells 3 from 1; ring 2 is nobody's.
    from_user = cs & 2
    frame = [*data, *(() if error_code is None else (error_code,))]
    # The saved mask lies in the upper half of the word that CS takes (``struct cpu_user_regs``).
    frame += [cpu.rip, cs | mask << 16, saved_flags(hv, state, cpu.rflags, mask)]
    if from_user:
        frame += [cpu.rsp, ss]
    # From user mode the kernel's stack is the one of ``stack_switch``, as a TSS would give it.
    stack, stack_selector = (state.kernel_sp, state.kernel_ss) if from_user else (cpu.rsp, ss)
    sp = stack - 4 * len(frame)
    # Written with the kernel's rights, since the guest's kernel wrote the page tables (x86_64/compat/entry.S).
    if not _push(hv, cpu, sp, struct.pack(f"<{len(frame)}I", *frame), user=False):
        return
    if entry.mask_events:
        hv.memory.set_u8(state.info + hv.abi.upcall_mask, 1)
    try:
        # Only now, since a frame that was not pushed must leave the guest where it was.
        load_segments(hv, cpu, 1, entry.cs, FLAT_RING1_DS32 if data else stack_selector)
    except GuestFault as fault:
        hv.crash(f"entry at {entry.address:#x}: {fault.message}")
        return
    cpu.rsp = sp
    cpu.rflags = cpu.rflags & ~(VM | RF | NT | TF | IOPL) | IF
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
            # All pages are looked at before the first is written.
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
    # Both change together: a GS base of the wrong mode would lead the kernel into a process's memory.
    state = hv.state(cpu)
    state.in_kernel = not state.in_kernel
    switch_gs(hv, cpu)
    hv.load_cr3(cpu)


def deliver_upcall(hv: Hypervisor, cpu: Vcpu, selectors: tuple[int, int] | None = None) -> None:
    """Enter the guest at its event callback; the upcall is masked from then on."""
    hv.stats.traps["upcall"] += 1
    enter(hv, cpu, hv.state(cpu).event, selectors=selectors)
