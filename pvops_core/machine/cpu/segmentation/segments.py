"""Segment registers with their hidden parts, and the privilege level that goes with them.

No register write of the library changes the privilege level or loads a descriptor as the CPU would, so the hidden
words of the saved context are written instead.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import attrs

from pvops_core.machine.engines import (
    HF_ADDSEG,
    HF_CPL,
    HF_CS32,
    HF_CS64,
    HF_INHIBIT_IRQ,
    HF_LMA,
    HF_SS32,
    ContextLayout,
)

if TYPE_CHECKING:
    from pvops_core.machine.engines import Context

# SegmentCache of QEMU's target/i386/cpu.h on a 64-bit host: selector, base, limit, flags
_CACHE = struct.Struct("<I4xQII")
# Type bits, L and D/B of a descriptor's second word, then G and P (Intel SDM volume 3, 3.4.5)
_CODE, _WRITABLE, _CONFORMING, _LONG, _BIG = 1 << 11, 1 << 9, 1 << 10, 1 << 21, 1 << 22
_GRANULARITY, _PRESENT = 1 << 23, 1 << 15


@attrs.frozen
class Descriptor:
    """A code, data or system descriptor of 8 bytes (Intel SDM volume 3, 3.4.5).

    Attributes:
        low: first 32-bit word.
        high: second 32-bit word: type, DPL, present and size bits.
    """

    low: int
    high: int

    @classmethod
    def of(cls, raw: int) -> Descriptor:
        """From the descriptor as one 64-bit number."""
        return cls(raw & 0xFFFFFFFF, raw >> 32 & 0xFFFFFFFF)

    @property
    def base(self) -> int:
        """32-bit base address."""
        # Base in three pieces, limit in two: the 286's descriptor with what the 386 needed more (SDM volume 3, figure
        # 3-8).
        return self.low >> 16 | (self.high & 0xFF) << 16 | self.high & 0xFF000000

    @property
    def limit(self) -> int:
        """Limit in bytes, the last valid offset."""
        limit = self.low & 0xFFFF | self.high & 0xF0000
        return limit << 12 | 0xFFF if self.high & _GRANULARITY else limit

    @property
    def dpl(self) -> int:
        """Descriptor privilege level."""
        return self.high >> 13 & 3

    @property
    def present(self) -> bool:
        """The segment is present."""
        return bool(self.high & 1 << 15)

    @property
    def system(self) -> bool:
        """A gate, TSS or LDT and not a code or data segment."""
        return not self.high & 1 << 12

    @property
    def type(self) -> int:
        """The four type bits."""
        return self.high >> 8 & 15

    @property
    def code(self) -> bool:
        """A code segment."""
        return not self.system and bool(self.high & _CODE)

    @property
    def conforming(self) -> bool:
        """A code segment that runs at its caller's level."""
        return self.code and bool(self.high & _CONFORMING)

    @property
    def writable_data(self) -> bool:
        """A data segment that may be a stack."""
        return not self.system and not self.high & _CODE and bool(self.high & _WRITABLE)

    @property
    def long(self) -> bool:
        """A 64-bit code segment."""
        return self.code and bool(self.high & _LONG)

    @property
    def big(self) -> bool:
        """D/B: 32-bit code or stack."""
        return bool(self.high & _BIG)


def allows(limit: int, high: int, offset: int, size: int, *, write: bool) -> bool:
    """Whether data may be accessed through a segment: limit in bytes and second word of its descriptor, 0 for null.

    Source: Intel SDM volume 3, 5.3 (limits), 5.4.1 (null selectors) and 3.4.5.1 (types).
    """
    if not high & _PRESENT:
        return False
    # One bit lets data be written, and code be read.
    fits_type = bool(high & _WRITABLE) and not write if high & _CODE else bool(high & _WRITABLE) or not write
    # Held against the limit whole: an access that wraps at 4 GiB exceeds it.
    last = offset + size - 1
    if not high & _CODE and high & _CONFORMING:  # this bit of data means that it grows downwards
        # Expand-down: what is beyond the limit may be used, up to 64 KiB or 4 GiB as B says (SDM volume 3, 5.3).
        return fits_type and limit < offset and last <= (0xFFFFFFFF if high & _BIG else 0xFFFF)
    return fits_type and last <= limit


def flat(cpl: int, *, code: bool, bits: int) -> Descriptor:
    """A flat segment of 4 GiB (or a 64-bit one) at a privilege level."""
    # As code or data, with what the processor itself would set: present, accessed, code readable, data writable.
    kind = 0x9B if code else 0x93
    size = 0xA if code and bits == 64 else 0xC  # G and L, or G and D/B
    return Descriptor(0xFFFF, size << 20 | 0xF0000 | (kind | cpl << 5) << 8)


class HiddenState:
    """The words of one saved context that hold segments and hidden flags."""

    def __init__(self, context: Context, layout: ContextLayout) -> None:
        self._bytes = context.bytes
        self._layout = layout

    @property
    def flags(self) -> int:
        """QEMU's hidden flags."""
        at = self._layout.hidden_flags
        return int.from_bytes(self._bytes[at : at + 4], "little")

    @flags.setter
    def flags(self, value: int) -> None:
        at = self._layout.hidden_flags
        self._bytes[at : at + 4] = value.to_bytes(4, "little")

    @property
    def interrupt_shadow(self) -> bool:
        """The last instruction was sti or a load of SS: no interrupt before the next one."""
        return bool(self.flags & HF_INHIBIT_IRQ)

    def segment(self, name: str) -> tuple[int, int, int, int]:
        """Selector, base, limit and second descriptor word of a segment register."""
        at = self._layout.segment(name)
        selector, base, limit, high = _CACHE.unpack_from(self._bytes, at)
        return selector, base, limit, high

    def load(self, name: str, selector: int, descriptor: Descriptor) -> None:
        """Put a descriptor into a segment register without any check, and mark it accessed in the cache."""
        self._put(name, selector, descriptor)
        self._update()

    def load_both(self, cs: tuple[int, Descriptor], ss: tuple[int, Descriptor] | None) -> None:
        """Load CS and perhaps SS."""
        self._put("cs", *cs)
        if ss is not None:
            self._put("ss", *ss)
        self._update()

    def _put(self, name: str, selector: int, descriptor: Descriptor) -> None:
        base, limit = descriptor.base, descriptor.limit
        at = self._layout.segment(name)
        # The accessed bit, as a load sets it (SDM volume 3, 3.4.5.1).
        _CACHE.pack_into(self._bytes, at, selector & 0xFFFF, base, limit, descriptor.high | 1 << 8)

    def set_cpl(self, cpl: int) -> None:
        """Set the privilege level."""
        self.flags = self.flags & ~HF_CPL | cpl

    def _update(self) -> None:
        """Derive the flags that depend on segments, as the CPU does when it loads one."""
        flags = self.flags & ~(HF_CS32 | HF_CS64 | HF_SS32 | HF_ADDSEG)
        code, stack = self.segment("cs")[3], self.segment("ss")[3]
        # QEMU derives these in cpu_x86_load_seg_cache; without them it would decode code of the wrong width.
        if flags & HF_LMA and code & _LONG:
            self.flags = flags | HF_CS32 | HF_SS32 | HF_CS64
            return
        if code & _BIG:
            flags |= HF_CS32
        if stack & _BIG:
            flags |= HF_SS32
        # Flat segments need no base added, and QEMU leaves the addition out where ADDSEG is not set.
        if not code & _BIG or any(self.segment(name)[1] for name in ("ds", "es", "ss")):
            flags |= HF_ADDSEG
        self.flags = flags
