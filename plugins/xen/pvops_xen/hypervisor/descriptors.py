"""Segment descriptors: which ones Xen accepts, and how it fixes them (``check_descriptor``, ``validate_segdesc_page``).

A descriptor is 64 bits; ``high`` is its upper half: type (8-11), S (12), DPL (13-14), P (15), L (21).
"""

import struct
from typing import Final

_PAGE: Final = struct.Struct("<512Q")
_EMPTY: Final = bytes(4096)

S: Final = 1 << 12
DPL: Final = 3 << 13
P: Final = 1 << 15
AVL: Final = 1 << 20
L: Final = 1 << 21
DB: Final = 1 << 22
ACCESSED: Final = 1 << 8
_CODE: Final = 1 << 11
_CALL_GATE: Final = 0xC00
_TYPE: Final = 0xF00


def check_descriptor(descriptor: int, bits: int) -> int | None:
    """The descriptor as Xen stores it, or None if Xen refuses it.

    Not-present ones pass. Code and data segments get a DPL of at least the guest kernel's ring (3 for 64-bit, 1 for
    32-bit guests); of system descriptors only call gates are taken, and only ones whose target selector is the guest's.
    """
    high = descriptor >> 32
    low = descriptor & 0xFFFF_FFFF
    if not high & P:
        return descriptor
    kernel_ring = 3 if bits == 64 else 1
    if high & S:
        if (high & DPL) >> 13 < kernel_ring:
            high = high & ~DPL | kernel_ring << 13
        if high & L and (bits == 32 or (high & _CODE and high & DB)):
            return None
        # The CPU must not have to write to a table that it sees read-only.
        return (high | ACCESSED) << 32 | low
    return _check_gate(high, low, kernel_ring)


def _check_gate(high: int, low: int, kernel_ring: int) -> int | None:
    """A call gate to a code segment of the guest's own, or nothing."""
    if high & _TYPE == 0:  # an invalid system descriptor: harmless
        return high << 32 | low
    if high & _TYPE != _CALL_GATE:
        return None
    selector = low >> 16
    # A gate must not reach Xen's own ring; its selector's ring is made the guest kernel's.
    if selector & 3 < kernel_ring:
        low = low & ~(3 << 16) | kernel_ring << 16
    if selector & 4 == 0 and (low >> 19) >= 14 * 512:
        return None
    if high & 0x1F:
        return None  # parameters would be copied from a stack that is not the guest's
    return high << 32 | low


def fix_descriptor_page(page: bytes, bits: int) -> bytes | None:
    """A page of descriptors as Xen stores it when it becomes part of a GDT or LDT; None if one is refused."""
    if page == _EMPTY:
        return page
    fixed = []
    for descriptor in _PAGE.unpack(page):
        checked = check_descriptor(descriptor, bits)
        if checked is None:
            return None
        fixed.append(checked)
    return _PAGE.pack(*fixed)
