"""Hypercalls for descriptor tables, traps, callbacks and segment bases (xen/arch/x86/pv)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pvops_core.machine.faults import GuestFault
from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import (
    CALLBACKF_MASK_EVENTS,
    EINVAL,
    ENOSYS,
    EPERM,
    FIRST_RESERVED_GDT_ENTRY,
    FLAT_KERNEL_CS64,
    FLAT_RING1_CS32,
    PAGE_SHIFT,
    Callback,
    Segbase,
)
from pvops_xen.hypervisor.descriptors import check_descriptor
from pvops_xen.hypervisor.frames import FrameType
from pvops_xen.hypervisor.ldt import descriptor_of
from pvops_xen.hypervisor.segments import install_gdt
from pvops_xen.hypervisor.state import NO_ENTRY, Entry

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.machine.segments import Descriptor
    from pvops_xen.hypervisor.core import Hypervisor

_ENODEV: Final = 19
_MSR_FS_BASE: Final = 0xC000_0100
_MSR_GS_BASE: Final = 0xC000_0101
_MSR_KERNEL_GS_BASE: Final = 0xC000_0102
_MAX_TRAP_ENTRIES: Final = 4096
_DR7_GD: Final = 1 << 13
_DR7_ACTIVE: Final = 0xFF
_PORT: Final = 2
_READABLE: Final = 1 << 9  # of a code descriptor's second word
_CR4_DE: Final = 1 << 3


def guest_selector(bits: int, selector: int) -> int:
    """``fixup_guest_code_selector``: a selector at the guest kernel's own ring at least."""
    ring = 3 if bits == 64 else 1
    return selector if selector & 3 >= ring else selector & ~3 | ring


def set_trap_table(hv: Hypervisor, cpu: Vcpu, traps: int) -> int:
    """``set_trap_table(traps)``: an array that ends with address 0; a null pointer clears the table."""
    state, abi = hv.state(cpu), hv.abi
    if traps == 0:
        state.traps = [NO_ENTRY] * len(state.traps)
        return 0
    for index in range(_MAX_TRAP_ENTRIES):
        raw = access.read(hv, cpu, traps + index * abi.trap_info_size, abi.trap_info_size)
        vector, flags, selector = struct.unpack_from("<BBH", raw)
        address = int.from_bytes(raw[abi.word : 2 * abi.word], "little")
        if address == 0:
            return 0
        if not access.canonical(abi, address):
            return -EINVAL
        code = guest_selector(abi.bits, selector)
        state.traps[vector] = Entry(code, address, bool(flags & 4), flags & 3)
    return -EINVAL


def set_gdt(hv: Hypervisor, cpu: Vcpu, frame_list: int, entries: int) -> int:
    """``set_gdt(frames, entries)``: the frames must pass as descriptor pages; the old ones are given up."""
    if entries > FIRST_RESERVED_GDT_ENTRY:
        return -EINVAL
    count = (entries + 511) // 512
    raw = access.read(hv, cpu, frame_list, count * hv.abi.word)
    word = hv.abi.word
    frames = [int.from_bytes(raw[i * word : (i + 1) * word], "little") for i in range(count)]
    return load_gdt(hv, cpu, frames, entries)


def load_gdt(hv: Hypervisor, cpu: Vcpu, frames: list[int], entries: int) -> int:
    """Take a list of frames as a vCPU's GDT: 0, or -EINVAL with nothing changed."""
    taken: list[int] = []
    for mfn in frames:
        if hv.validator.get_page_and_type(mfn, FrameType.SEG_DESC):
            for earlier in taken:
                hv.validator.put_page_and_type(earlier)
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
    if address & 7 or checked is None or not hv.frames.get_page(mfn):
        return -EINVAL
    try:
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
    """``stack_switch(ss, sp)``: the stack for entries from user mode."""
    state = hv.state(cpu)
    state.kernel_ss = guest_selector(hv.abi.bits, ss & 0xFFFF)
    state.kernel_sp = sp
    return 0


def set_callbacks(hv: Hypervisor, cpu: Vcpu, *args: int) -> int:
    """``set_callbacks``: (event, failsafe, syscall) addresses, or two (selector, address) pairs for 32-bit guests.

    One that is not canonical stays as it was; the answer is 0 all the same.
    """
    state, bits = hv.state(cpu), hv.abi.bits
    if bits == 64:
        for kind, address in zip((Callback.EVENT, Callback.FAILSAFE, Callback.SYSCALL), args[:3], strict=True):
            if access.canonical(hv.abi, address):
                _register(hv, cpu, kind, Entry(0, address))
        return 0
    state.event = Entry(guest_selector(bits, args[0]), args[1], mask_events=True)
    state.failsafe = Entry(guest_selector(bits, args[2]), args[3])
    return 0


def callback_op(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """``callback_op``: register (0) or unregister (1) one callback."""
    if command not in {0, 1}:
        return -ENOSYS
    abi = hv.abi
    raw = access.read(hv, cpu, argument, 2 * abi.word if abi.bits == 64 else 12)
    kind, flags = struct.unpack_from("<HH", raw)
    if command == 1:
        return _unregister(hv, cpu, kind)
    mask = bool(flags & CALLBACKF_MASK_EVENTS)
    if abi.bits == 64:
        entry = Entry(0, int.from_bytes(raw[8:16], "little"), mask)
        if not access.canonical(abi, entry.address):
            return -EINVAL
    else:
        selector, address = struct.unpack_from("<II", raw, 4)
        entry = Entry(guest_selector(32, selector & 0xFFFF), address, mask)
    return _register(hv, cpu, kind, entry)


_CALLBACK_FIELDS: Final = {
    Callback.EVENT: "event",
    Callback.FAILSAFE: "failsafe",
    Callback.SYSCALL: "syscall",
    Callback.SYSCALL32: "syscall32",
    Callback.SYSENTER: "sysenter",
    Callback.SYSENTER_DEPRECATED: "sysenter",
}
_NMI: Final = 2
_ONLY_64: Final = frozenset({Callback.SYSCALL, Callback.SYSCALL32})


def _register(hv: Hypervisor, cpu: Vcpu, kind: int, entry: Entry) -> int:
    if kind == Callback.NMI:
        return _register_nmi(hv, cpu, entry.address)
    if kind not in _CALLBACK_FIELDS or (hv.abi.bits == 32 and kind in _ONLY_64):
        return -ENOSYS
    if kind == Callback.EVENT:  # an upcall always starts masked
        entry = Entry(entry.cs, entry.address, mask_events=True)
    setattr(hv.state(cpu), _CALLBACK_FIELDS[Callback(kind)], entry)
    return 0


def _unregister(hv: Hypervisor, cpu: Vcpu, kind: int) -> int:
    if kind == Callback.NMI:
        return _register_nmi(hv, cpu, 0)
    return -EINVAL if kind in _CALLBACK_FIELDS else -ENOSYS


def _register_nmi(hv: Hypervisor, cpu: Vcpu, address: int) -> int:
    """An NMI's callback is its entry in the trap table, always with Xen's flat code segment."""
    hv.state(cpu).traps[_NMI] = Entry(FLAT_KERNEL_CS64 if hv.abi.bits == 64 else FLAT_RING1_CS32, address)
    return 0


def nmi_op(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """``nmi_op(cmd, arg)``: register (0) or unregister (1) the callback for NMIs."""
    if command == 1:
        return _register_nmi(hv, cpu, 0)
    if command != 0:
        return -ENOSYS
    address = access.read_word(hv, cpu, argument)
    if not access.canonical(hv.abi, address):
        return -EINVAL
    return _register_nmi(hv, cpu, address)


def set_segment_base(hv: Hypervisor, cpu: Vcpu, which: int, base: int) -> int:
    """``set_segment_base(which, base)``, 64-bit guests only; in kernel mode, so the kernel's GS is live."""
    if hv.abi.bits == 32:
        return -ENOSYS
    state = hv.state(cpu)
    if which == Segbase.GS_USER_SEL:
        _load_user_gs(hv, cpu, base & 0xFFFF)
        return 0
    if which not in {Segbase.FS, Segbase.GS_USER, Segbase.GS_KERNEL} or not access.canonical(hv.abi, base):
        return -EINVAL
    if which == Segbase.FS:
        state.fs_base = base
        cpu.set_msr(_MSR_FS_BASE, base)
    elif which == Segbase.GS_USER:
        state.gs_base_user = base
    else:
        state.gs_base_kernel = base
        cpu.set_msr(_MSR_GS_BASE, base)
    return 0


def _load_user_gs(hv: Hypervisor, cpu: Vcpu, selector: int) -> None:
    """A selector for the processes' GS, whose base becomes theirs; one that cannot be loaded becomes a null one."""
    state = hv.state(cpu)
    state.gs_base_user = 0
    if selector <= 3 and cpu.get("gs") == selector:
        return
    descriptor = _data_descriptor(hv, cpu, selector | 3) if selector > 3 else None
    if descriptor is not None:
        state.gs_base_user = descriptor.base
    live = cpu.msr(_MSR_GS_BASE)
    cpu.load_segment("gs", 0 if descriptor is None else selector | 3)
    cpu.set_msr(_MSR_GS_BASE, live)


def _data_descriptor(hv: Hypervisor, cpu: Vcpu, selector: int) -> Descriptor | None:
    """What a selector of ring 3 names, if a data segment register can have it."""
    try:
        descriptor = descriptor_of(hv, cpu, selector)
    except GuestFault:
        return None
    readable = not descriptor.system and (not descriptor.code or descriptor.high & _READABLE)
    return descriptor if readable and descriptor.present and descriptor.dpl == 3 else None


def switch_gs(hv: Hypervisor, cpu: Vcpu) -> None:
    """The guest changed mode: the live base is put away, the other mode's is made live (``toggle_guest_mode``)."""
    state = hv.state(cpu)
    live = cpu.msr(_MSR_GS_BASE)
    if state.in_kernel:  # it has just come from user mode
        state.gs_base_user = live
        cpu.set_msr(_MSR_GS_BASE, state.gs_base_kernel)
    else:
        state.gs_base_kernel = live
        cpu.set_msr(_MSR_GS_BASE, state.gs_base_user)


def set_debugreg(hv: Hypervisor, cpu: Vcpu, number: int, value: int) -> int:
    """``set_debugreg(reg, value)``: breakpoints on Xen itself and general detect are refused."""
    state = hv.state(cpu)
    if number in range(4):
        if not access.addr_ok(hv.abi, value):
            return -EPERM
        state.debugreg[number] = value
        cpu.debug.write(number, value)
        return 0
    if number not in range(8) or (number in {4, 5} and state.cr4 & _CR4_DE):
        return -_ENODEV
    if value >> 32:
        return -EINVAL
    if number in {4, 6}:
        state.debugreg[6] = value & 0xE00F | 0xFFFF_0FF0
    elif _is_forbidden(value, state.cr4):
        return -EPERM
    else:
        state.debugreg[7] = value & 0xFFFF_2FFF | 0x400
        cpu.debug.write(7, value)
    return 0


def _is_forbidden(dr7: int, cr4: int) -> bool:
    """DR7 asks for general detect, or without CR4.DE for a breakpoint on a port (2 in bits 16 and 17, 20 and 21 …)."""
    on_port = any(dr7 >> shift & 3 == _PORT for shift in range(16, 32, 4))
    return bool(dr7 & _DR7_GD or (dr7 & _DR7_ACTIVE and on_port and not cr4 & _CR4_DE))


def get_debugreg(hv: Hypervisor, cpu: Vcpu, number: int) -> int:
    """``get_debugreg(reg)``."""
    if number not in range(8) or (number in {4, 5} and hv.state(cpu).cr4 & _CR4_DE):
        return -_ENODEV
    return hv.state(cpu).debugreg[number + 2 if number in {4, 5} else number]


def fpu_taskswitch(hv: Hypervisor, cpu: Vcpu, set_ts: int) -> int:
    """``fpu_taskswitch(set)``: CR0.TS, so that the next use of the FPU traps."""
    state = hv.state(cpu)
    state.cr0 = state.cr0 | 8 if set_ts else state.cr0 & ~8
    cpu.cr0 = cpu.cr0 | 8 if set_ts else cpu.cr0 & ~8
    return 0
