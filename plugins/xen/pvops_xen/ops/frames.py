"""Pseudo-physical and machine frame numbers, looked up as the guest's kernel does: p2m list and M2P table.

Source: arch/x86/include/asm/xen/page.h (mfn_to_pfn), arch/x86/xen/mmu_pv.c (pte_mfn_to_pfn, pte_pfn_to_mfn).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor.memory import entries as pte

if TYPE_CHECKING:
    from pvops_xen.platform import XenPlatform

INVALID: Final = -1


class FrameNumbers:
    """Translation for one domain."""

    def __init__(self, platform: XenPlatform) -> None:
        self._hv = platform.hv
        self._p2m = platform.hv.domain.p2m

    def mfn(self, pfn: int) -> int:
        """Machine frame of one of the guest's frames; INVALID if it has no such frame."""
        return self._p2m[pfn] if 0 <= pfn < len(self._p2m) else INVALID

    def pfn(self, mfn: int) -> int:
        """The guest's frame that lies in a machine frame; INVALID for a foreign one, where the two tables disagree."""
        # Frames beyond the machine's are foreign: they belong to another domain.
        if mfn >= len(self._hv.frames):
            return INVALID
        pfn = self._hv.pfn_of(mfn)
        # Only where both tables agree is the frame the guest's own (``mfn_to_pfn``).
        return pfn if pfn < len(self._p2m) and self._p2m[pfn] == mfn else INVALID

    def entry_to_guest(self, entry: int) -> int:
        """``pte_mfn_to_pfn``: an entry as stored, as the kernel means it. A foreign frame makes it not present."""
        if not entry & pte.P:
            return entry
        pfn = self.pfn((entry & pte.ADDRESS) >> 12)
        flags = entry & ~pte.ADDRESS
        # A foreign frame makes the entry not present, so that nobody takes it for memory of the guest's.
        return flags & ~pte.P if pfn == INVALID else pfn << 12 | flags

    def entry_to_machine(self, entry: int) -> int:
        """``pte_pfn_to_mfn``: an entry to be stored. A frame that the guest does not have makes it empty."""
        if not entry & pte.P:
            return entry
        mfn = self.mfn((entry & pte.ADDRESS) >> 12)
        return 0 if mfn == INVALID else mfn << 12 | entry & ~pte.ADDRESS
