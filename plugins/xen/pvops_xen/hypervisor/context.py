"""VCPUOP_initialise: a vCPU's first registers, out of vcpu_guest_context (arch_set_info_guest of xen/arch/x86)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.machine.faults import GuestFault
from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import EINVAL, FIRST_RESERVED_GDT_ENTRY, NR_TRAPS, VGCF_IN_KERNEL
from pvops_xen.hypervisor.callbacks import guest_selector, trap_entry
from pvops_xen.hypervisor.frames import FrameType
from pvops_xen.hypervisor.layout import (
    GUEST_CONTEXT32,
    GUEST_CONTEXT64,
    USER_REGS32,
    USER_REGS64,
    Abi,
    GuestContext,
)
from pvops_xen.hypervisor.ldt import load_segments
from pvops_xen.hypervisor.state import Entry, VcpuState
from pvops_xen.hypervisor.tables import load_gdt
from pvops_xen.hypervisor.timers import write_vcpu_time

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_IF = 1 << 9


class _Words:
    """Fields of the raw structure by offset."""

    def __init__(self, raw: bytes, abi: Abi) -> None:
        self.raw = raw
        self.word = abi.word

    def at(self, offset: int) -> int:
        """An unsigned long."""
        return int.from_bytes(self.raw[offset : offset + self.word], "little")


def initialise(hv: Hypervisor, caller: Vcpu, state: VcpuState, argument: int) -> int:
    """Give a vCPU its context: 0, -EFAULT or -EINVAL. It does not run before VCPUOP_up."""
    abi = hv.abi
    layout = GUEST_CONTEXT64 if abi.bits == 64 else GUEST_CONTEXT32
    words = _Words(access.read(hv, caller, argument, layout.size), abi)
    cpu = hv.machine.vcpus[state.index]
    entries = words.at(layout.gdt_ents)
    if entries > FIRST_RESERVED_GDT_ENTRY or words.at(layout.ldt_ents) > 8192:
        return -EINVAL
    root = _root_frame(words.at(layout.ctrlreg + 3 * abi.word), abi)
    kind = FrameType.L4 if abi.bits == 64 else FrameType.L3
    if hv.validator.get_page_and_type(root, kind):
        return -EINVAL
    frames = [words.at(layout.gdt_frames + i * abi.word) for i in range((entries + 511) // 512)]
    if load_gdt(hv, cpu, frames, entries):
        hv.validator.put_page_and_type(root)
        return -EINVAL
    state.guest_table = root
    state.initialised = True
    _load_entries(state, words, layout, abi)
    _load_user_table(hv, state, words, layout, abi)
    return _load_registers(hv, cpu, state, words, layout)


def _root_frame(cr3: int, abi: Abi) -> int:
    """``xen_cr3_to_pfn``: a 32-bit CR3 is rotated so that frames above 4 GiB fit."""
    return cr3 >> 12 if abi.bits == 64 else (cr3 >> 12 | cr3 << 20) & 0xFFFF_FFFF


def _load_entries(state: VcpuState, words: _Words, layout: GuestContext, abi: Abi) -> None:
    size = abi.trap_info_size
    for index in range(NR_TRAPS):
        offset = layout.trap_ctxt + index * size
        state.traps[index] = trap_entry(abi.bits, words.raw[offset : offset + size])
    state.kernel_ss = guest_selector(abi.bits, words.at(layout.kernel_ss) & 0xFFFF)
    state.kernel_sp = words.at(layout.kernel_sp)
    state.ldt_base, state.ldt_ents = words.at(layout.ldt_base), words.at(layout.ldt_ents)
    if abi.bits == 64:
        state.event = Entry(0, words.at(layout.event_callback), mask_events=True)
        state.failsafe = Entry(0, words.at(layout.failsafe_callback))
        state.syscall = Entry(0, words.at(layout.syscall_callback))
        state.fs_base = words.at(layout.fs_base)
        state.gs_base_kernel = words.at(layout.gs_base_kernel)
        state.gs_base_user = words.at(layout.gs_base_user)
        return
    event, failsafe = (
        (guest_selector(32, words.at(at) & 0xFFFF), words.at(at + 4))
        for at in (layout.event_callback, layout.failsafe_callback)
    )
    state.event = Entry(*event, mask_events=True)
    state.failsafe = Entry(*failsafe)


def _load_user_table(hv: Hypervisor, state: VcpuState, words: _Words, layout: GuestContext, abi: Abi) -> None:
    """ctrlreg[1] of a 64-bit context is the user root."""
    user = words.at(layout.ctrlreg + abi.word) >> 12
    if abi.bits == 64 and user and not hv.validator.get_page_and_type(user, FrameType.L4):
        state.guest_table_user = user


def _load_registers(hv: Hypervisor, cpu: Vcpu, state: VcpuState, words: _Words, layout: GuestContext) -> int:
    bits = hv.abi.bits
    names = USER_REGS64 if bits == 64 else USER_REGS32
    values = {name: words.at(layout.user_regs + i * hv.abi.word) for i, name in enumerate(names) if name}
    state.in_kernel = bits == 32 or bool(words.at(layout.flags) & VGCF_IN_KERNEL)
    hv.load_cr3(cpu)
    level = 3 if bits == 64 else 1
    selectors = {name: values.pop(name) & 0xFFFF for name in ("cs", "ss", "ds", "es", "fs", "gs")}
    flags = values.pop("rflags" if bits == 64 else "eflags")
    try:
        load_segments(hv, cpu, level, guest_selector(bits, selectors["cs"]), guest_selector(bits, selectors["ss"]))
        for name in ("ds", "es", "fs", "gs"):
            cpu.load_segment(name, selectors[name])
    except GuestFault:
        return -EINVAL
    for name, value in values.items():
        cpu.set(name, value)
    state.iopl = flags >> 12 & 3  # Xen keeps it apart; the processor's own stays 0
    cpu.rflags = flags & ~(3 << 12) | _IF
    if bits == 64:
        cpu.set_msr(0xC000_0100, state.fs_base)
        cpu.set_msr(0xC000_0101, state.gs_base_kernel if state.in_kernel else state.gs_base_user)
    write_vcpu_time(hv, state)
    return 0
