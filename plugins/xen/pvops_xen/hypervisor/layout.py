"""What a run's paths need of Xen's structures, for both widths: out of their declarations (``pvops_xen.public``)."""

from __future__ import annotations

from functools import cache
from typing import Final

import attrs

from pvops_xen.public import XEN

START_INFO: Final = XEN["start_info"]
GUEST_CONTEXT: Final = XEN["vcpu_guest_context"]
_SHARED_INFO: Final = XEN["shared_info"]
_VCPU_INFO: Final = XEN["vcpu_info"]


@attrs.frozen
class Abi:
    """Offsets and sizes that depend on the guest's width.

    Attributes:
        bits: 32 or 64.
        word: bytes of an ``unsigned long``.
        mask: all bits of one.
        m2p_entry: bytes of a machine-to-physical entry.
        m2p_start, m2p_end: virtual addresses of the machine-to-physical table.
        channels: number of event channels of the two-level interface.
        upcall_mask, pending_sel, cr2, time: offsets in vcpu_info.
        evtchn_pending, evtchn_mask: offsets in shared_info.
        wc_sec_hi, max_pfn: offsets there.
        vcpu_info_size, trap_info_size: sizes of structures.
    """

    bits: int
    word: int
    mask: int
    m2p_entry: int
    m2p_start: int
    m2p_end: int
    channels: int
    upcall_mask: int
    pending_sel: int
    cr2: int
    time: int
    evtchn_pending: int
    evtchn_mask: int
    wc_sec_hi: int
    max_pfn: int
    vcpu_info_size: int
    trap_info_size: int


@cache
def abi_of(bits: int) -> Abi:
    """The layout for a guest's width."""
    # Where the guest sees the M2P table: config.h, RO_MPT_VIRT_START (256 GiB) and MACH2PHYS_COMPAT_VIRT_END.
    start, end = (0xFFFF_8000_0000_0000, 0xFFFF_8040_0000_0000) if bits == 64 else (0xF580_0000, 0xFFE0_0000)
    return Abi(
        bits=bits,
        word=bits // 8,
        mask=(1 << bits) - 1,
        m2p_entry=bits // 8,
        m2p_start=start,
        m2p_end=end,
        channels=bits * bits,  # a selector of as many words as a word has bits
        upcall_mask=_VCPU_INFO.offset("evtchn_upcall_mask", bits),
        pending_sel=_VCPU_INFO.offset("evtchn_pending_sel", bits),
        cr2=_VCPU_INFO.offset("arch.cr2", bits),
        time=_VCPU_INFO.offset("time", bits),
        evtchn_pending=_SHARED_INFO.offset("evtchn_pending", bits),
        evtchn_mask=_SHARED_INFO.offset("evtchn_mask", bits),
        wc_sec_hi=_SHARED_INFO.offset("wc_sec_hi" if bits == 64 else "arch.wc_sec_hi", bits),
        max_pfn=_SHARED_INFO.offset("arch.max_pfn", bits),
        vcpu_info_size=_VCPU_INFO.size(bits),
        trap_info_size=XEN["trap_info"].size(bits),
    )
