"""The guest's descriptors: copied from its own GDT, put right, and shown to the CPU from the host's page.

Source: drivers/lguest/segments.c; entry numbers from include/asm-i386/segment.h and asm-x86/lguest.h.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pvops_lguest.host.kill import GuestKilledError

if TYPE_CHECKING:
    from pvops_core.machine import PhysicalMemory
    from pvops_lguest.host.memory import GuestMemory

# GDT_ENTRIES and the numbers below are of a 32-bit kernel's table (asm/segment.h).
GDT_ENTRIES = 32
TLS_MIN = 6
TLS_ENTRIES = 3
# The host's own, in two entries that Linux does not use: the switcher runs in them.
LGUEST_CS_ENTRY = 10
LGUEST_DS_ENTRY = 11
KERNEL_CS_ENTRY = 12
KERNEL_DS_ENTRY = 13
TSS_ENTRY = 16
DOUBLEFAULT_TSS_ENTRY = 31

GUEST_PL = 1
"""The ring that a guest's kernel runs in."""

KERNEL_CS = KERNEL_CS_ENTRY * 8 | GUEST_PL
KERNEL_DS = KERNEL_DS_ENTRY * 8 | GUEST_PL

_FULL_CODE = (0x0000FFFF, 0x00CF9B00)  # FULL_EXEC_SEGMENT and FULL_SEGMENT (asm/lguest.h): flat, 4 GiB, level 0
_FULL_DATA = (0x0000FFFF, 0x00CF9300)
# Of the descriptor's high word (SDM volume 3, 3.4.5).
_DPL_SHIFT = 13
_DPL = 3 << _DPL_SHIFT
_ACCESSED = 1 << 8

IGNORED = frozenset({TSS_ENTRY, LGUEST_CS_ENTRY, LGUEST_DS_ENTRY, DOUBLEFAULT_TSS_ENTRY})
"""Entries that stay the host's whatever the guest asks for."""

_ENTRY = struct.Struct("<II")


def fixed_up(low: int, high: int) -> tuple[int, int]:
    """A descriptor as the host lets the CPU see it.

    Guests are careless and leave privilege level 0, which they do not run at; and the accessed bit must be
    set already, for the CPU could not set it in the host's page.
    """
    # fixup_gdt_table(): a segment of ring 0 would let the guest out of ring 1, so its level becomes 1; 3 stays.
    if high & _DPL == 0:
        high |= GUEST_PL << _DPL_SHIFT
    # ACCESSED at once: the CPU would set it on load, in a page that it may not write to.
    return low, high | _ACCESSED


class Segments:
    """One guest's GDT, kept in the host's own page where the CPU reads it."""

    def __init__(self, memory: PhysicalMemory, guest: GuestMemory, pa: int) -> None:
        """Lay the table out at physical ``pa`` with full segments for the host and the guest's kernel."""
        self._memory = memory
        self._guest = guest
        self.pa = pa
        guest_level = GUEST_PL << _DPL_SHIFT
        self._put(LGUEST_CS_ENTRY, *_FULL_CODE)
        self._put(LGUEST_DS_ENTRY, *_FULL_DATA)
        # Kernel segments before any LOAD_GDT: the guest enters with them (setup_guest_gdt()).
        self._put(KERNEL_CS_ENTRY, _FULL_CODE[0], _FULL_CODE[1] | guest_level)
        self._put(KERNEL_DS_ENTRY, _FULL_DATA[0], _FULL_DATA[1] | guest_level)

    def _put(self, index: int, low: int, high: int) -> None:
        self._memory.write(self.pa + index * 8, _ENTRY.pack(low, high))

    def entry(self, index: int) -> tuple[int, int]:
        """Low and high word of descriptor ``index`` as the CPU sees it."""
        low, high = _ENTRY.unpack(self._memory.read(self.pa + index * 8, 8))
        return low, high

    def load_gdt(self, pa: int, entries: int) -> None:
        """LOAD_GDT: take ``entries`` descriptors at guest-physical ``pa``.

        Raises:
            GuestKilledError: there are more than 32, or they are not in the guest's memory.
        """
        if entries > GDT_ENTRIES:
            raise GuestKilledError(f"too many gdt entries {entries}")
        self._copy(0, self._guest.read(pa, entries * 8))

    def load_tls(self, pa: int) -> None:
        """LOAD_TLS: take the three thread-local descriptors at guest-physical ``pa``.

        Raises:
            GuestKilledError: they are not in the guest's memory.
        """
        self._copy(TLS_MIN, self._guest.read(pa, TLS_ENTRIES * 8))

    def load_entry(self, index: int, low: int, high: int) -> None:
        """LOAD_GDT_ENTRY: set one descriptor.

        Raises:
            GuestKilledError: there is no such entry.
        """
        if index >= GDT_ENTRIES:
            raise GuestKilledError(f"too many gdt entries {index}")
        self._copy(index, _ENTRY.pack(low, high))

    def _copy(self, first: int, data: bytes) -> None:
        for index, (low, high) in enumerate(_ENTRY.iter_unpack(data), first):
            # ignored_gdt(): a task switch or the host's segments must never be the guest's to choose.
            if index not in IGNORED:
                self._put(index, *fixed_up(low, high))
