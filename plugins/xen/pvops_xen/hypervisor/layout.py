"""Offsets of the structures that Xen shares with a guest, for both widths (compiled from Xen's public headers)."""

from __future__ import annotations

from typing import Final

import attrs

VCPU_INFO_SIZE: Final = 64
VCPU_TIME_OFFSET: Final = 32
EVTCHN_PENDING: Final = 2048  # shared_info.evtchn_pending, both widths
LEGACY_MAX_VCPUS: Final = 32


@attrs.frozen
class Abi:
    """Offsets and sizes that depend on the guest's width.

    Attributes:
        bits: 32 or 64.
        word: bytes of an ``unsigned long``.
        pending_sel: offset in vcpu_info.
        cr2: offset of arch.cr2 in vcpu_info.
        evtchn_mask: offset in shared_info.
        wc: offset of wc_version, followed by wc_sec and wc_nsec.
        wc_sec_hi: offset in shared_info.
        max_pfn, frame_list_list: offsets of arch.max_pfn and arch.pfn_to_mfn_frame_list_list.
        mmuext_size, multicall_size, trap_info_size: sizes of the arrays' elements.
        m2p_entry: bytes of a machine-to-physical entry.
        m2p_start: virtual address of the machine-to-physical table.
        channels: number of event channels of the two-level interface.
    """

    bits: int
    pending_sel: int
    cr2: int
    evtchn_mask: int
    wc: int
    wc_sec_hi: int
    max_pfn: int
    frame_list_list: int
    mmuext_size: int
    multicall_size: int
    trap_info_size: int
    m2p_entry: int
    m2p_start: int
    m2p_end: int
    channels: int

    @property
    def word(self) -> int:
        """Bytes of an unsigned long."""
        return self.bits // 8

    @property
    def mask(self) -> int:
        """All bits of an unsigned long."""
        return (1 << self.bits) - 1


ABI64: Final = Abi(
    bits=64,
    pending_sel=8,
    cr2=16,
    evtchn_mask=2560,
    wc=3072,
    wc_sec_hi=3084,
    max_pfn=3088,
    frame_list_list=3096,
    mmuext_size=24,
    multicall_size=64,
    trap_info_size=16,
    m2p_entry=8,
    m2p_start=0xFFFF_8000_0000_0000,
    m2p_end=0xFFFF_8040_0000_0000,
    channels=4096,
)
ABI32: Final = Abi(
    bits=32,
    pending_sel=4,
    cr2=8,
    evtchn_mask=2176,
    wc=2304,
    wc_sec_hi=2316 + 24,
    max_pfn=2316,
    frame_list_list=2320,
    mmuext_size=12,
    multicall_size=32,
    trap_info_size=8,
    m2p_entry=4,
    m2p_start=0xF580_0000,
    m2p_end=0xFFE0_0000,
    channels=1024,
)


def abi_of(bits: int) -> Abi:
    """The layout for a guest's width."""
    return ABI64 if bits == 64 else ABI32


@attrs.frozen
class StartInfo:
    """Offsets in start_info: u32 or word sized fields, see xen.h."""

    nr_pages: int
    shared_info: int
    flags: int
    store_mfn: int
    store_evtchn: int
    console_mfn: int
    console_evtchn: int
    pt_base: int
    nr_pt_frames: int
    mfn_list: int
    mod_start: int
    mod_len: int
    cmd_line: int
    first_p2m_pfn: int
    nr_p2m_frames: int
    size: int


START_INFO64: Final = StartInfo(32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128, 1152, 1160, 1168)
START_INFO32: Final = StartInfo(32, 36, 40, 44, 48, 52, 56, 60, 64, 68, 72, 76, 80, 1104, 1108, 1112)
CMD_LINE_SIZE: Final = 1024


@attrs.frozen
class GuestContext:
    """Offsets in vcpu_guest_context (xen.h, ``struct vcpu_guest_context``)."""

    flags: int
    user_regs: int
    trap_ctxt: int
    ldt_base: int
    ldt_ents: int
    gdt_frames: int
    gdt_ents: int
    kernel_ss: int
    kernel_sp: int
    ctrlreg: int
    debugreg: int
    event_callback: int
    failsafe_callback: int
    syscall_callback: int
    vm_assist: int
    fs_base: int
    gs_base_kernel: int
    gs_base_user: int
    size: int


GUEST_CONTEXT64: Final = GuestContext(
    512, 520, 720, 4816, 4824, 4832, 4960, 4968, 4976, 4984, 5048, 5112, 5120, 5128, 5136, 5144, 5152, 5160, 5168
)
# 32-bit callbacks are (cs, eip) pairs; the offsets are those of the cs word. There is no syscall callback.
GUEST_CONTEXT32: Final = GuestContext(
    512, 516, 584, 2632, 2636, 2640, 2704, 2708, 2712, 2716, 2748, 2780, 2788, 0, 2796, 0, 0, 0, 2800
)
# user_regs, in words of 8 and 4 bytes: cpu_user_regs of xen-x86_64.h and xen-x86_32.h.
USER_REGS64: Final = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
    "", "rip", "cs", "rflags", "rsp", "ss", "es", "ds", "fs", "gs",
)  # fmt: skip
USER_REGS32: Final = (
    "ebx", "ecx", "edx", "esi", "edi", "ebp", "eax", "", "eip", "cs", "eflags", "esp", "ss", "es", "ds", "fs", "gs",
)  # fmt: skip
