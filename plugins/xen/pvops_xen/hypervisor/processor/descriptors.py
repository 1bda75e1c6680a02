"""Segment descriptors: which ones Xen accepts, and how it fixes them (``check_descriptor``, ``validate_segdesc_page``).

A descriptor is 64 bits; ``high`` is its upper half: type (8-11), S (12), DPL (13-14), P (15), L (21).
"""

import struct
from typing import Final

from pvops_xen.hypervisor.abi import FIRST_RESERVED_GDT_ENTRY, FLAT_KERNEL_CS64, FLAT_RING1_CS32
from pvops_xen.hypervisor.abi import HYPERVISOR_VIRT_START32 as M2P32

_PAGE: Final = struct.Struct("<512Q")
_EMPTY: Final = bytes(4096)

# Of a descriptor's high word: Intel SDM volume 3, 3.4.5, and 3.5 for gates.
S: Final = 1 << 12
DPL: Final = 3 << 13
P: Final = 1 << 15
L: Final = 1 << 21
DB: Final = 1 << 22
GRANULARITY: Final = 1 << 23
ACCESSED: Final = 1 << 8
_CODE: Final = 1 << 11
_CALL_GATE: Final = 0xC00  # type 12, in bits 8 to 11
_TYPE: Final = 0xF00
_GATE_RESERVED: Final = {32: 0xE0, 64: 0xFF}  # a gate's count of parameters is no part of it in 64-bit mode


def check_descriptor(descriptor: int, bits: int) -> int | None:
    """The descriptor as Xen stores it, or None if Xen refuses it.

    Not-present ones pass. Code and data segments get a DPL of at least the guest kernel's ring (3 for 64-bit, 1 for
    32-bit guests); of system descriptors only call gates are taken, and only ones whose target selector is the guest's.
    A gate's own DPL becomes 0, so that the processor refuses it and Xen is asked; what it was is kept in the selector.
    """
    high = descriptor >> 32
    low = descriptor & 0xFFFF_FFFF
    # A descriptor that is not present is the guest's business.
    if not high & P:
        return descriptor
    # A guest's kernel runs in ring 1 or 3, and no descriptor may give it more.
    kernel_ring = 3 if bits == 64 else 1
    dpl = max((high & DPL) >> 13, kernel_ring)
    if high & S:
        # 64-bit segments of a 32-bit guest, or L and D/B together, are neither (SDM volume 3, 3.4.5).
        if high & L and (bits == 32 or (high & _CODE and high & DB)):
            return None
        if bits == 32:
            high, low = _reach_m2p(high, low)
        # The CPU must not have to write to a table that it sees read-only.
        return (high & ~DPL | dpl << 13 | ACCESSED) << 32 | low
    if high & _TYPE == 0:  # an invalid system descriptor: harmless, and the second half of a 64-bit gate
        return (high & ~DPL | dpl << 13) << 32 | low
    # Only call gates are let in: interrupts and traps of a guest go through Xen's own table.
    if high & _TYPE != _CALL_GATE or not _is_gate_target(low >> 16, bits) or high & _GATE_RESERVED[bits]:
        return None
    return (high & ~DPL) << 32 | low & ~(3 << 16) | dpl << 16


def _reach_m2p(high: int, low: int) -> tuple[int, int]:
    """A flat 32-bit segment that ends where Xen's part begins, or in it, is made to reach all of the M2P table."""
    base = high & 0xFF00_0000 | (high & 0xFF) << 16 | low >> 16
    limit = (high & 0xF_0000 | low & 0xFFFF) + 1
    if high & GRANULARITY:
        limit <<= 12
    return (high | 0xF_0000, low | 0xFFFF) if base == 0 and limit > M2P32 else (high, low)


def _is_gate_target(selector: int, bits: int) -> bool:
    """``guest_gate_selector_okay``: in the guest's part of the GDT, in its LDT, or Xen's flat kernel code segment."""
    flat = FLAT_KERNEL_CS64 if bits == 64 else FLAT_RING1_CS32
    return selector >> 3 < FIRST_RESERVED_GDT_ENTRY or selector == flat or bool(selector & 4)


def fix_descriptor_page(page: bytes, bits: int) -> bytes | None:
    """A page of descriptors as Xen stores it when it becomes part of a GDT or LDT; None if one is refused."""
    # Most pages of a table are empty, and are looked at often.
    if page == _EMPTY:
        return page
    fixed = []
    for descriptor in _PAGE.unpack(page):
        checked = check_descriptor(descriptor, bits)
        if checked is None:
            return None
        fixed.append(checked)
    return _PAGE.pack(*fixed)


def is_descriptor_page(page: bytes, bits: int) -> bool:
    """Every descriptor of a page is one that Xen has let in, or made of one."""
    return all(_is_safe(descriptor, bits) for descriptor in _PAGE.unpack(page))


def _is_safe(descriptor: int, bits: int) -> bool:
    high = descriptor >> 32
    if not high & P or high & (S | _TYPE) == 0:
        return True
    if high & S:
        return check_descriptor(descriptor, bits) == descriptor
    return high & (_TYPE | DPL | _GATE_RESERVED[bits]) == _CALL_GATE
