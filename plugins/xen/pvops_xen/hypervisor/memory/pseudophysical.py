"""A domain's memory as its own frame numbers have it, for whoever reads it without Xen.

Which frames are page tables is Xen's own knowledge, their types; their entries are turned from machine frames to the
guest's as saving a domain does (``normalise_pagetable`` of libxenguest, xg_sr_save_x86_pv.c). A table that the guest
is still making, which Xen has not validated, is none yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import numpy as np

from pvops_core.x86 import PAGE, PAGE_SHIFT
from pvops_xen.hypervisor.memory import entries as pte
from pvops_xen.hypervisor.memory.frames import GUEST, FrameType

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from pvops_xen.hypervisor.core import Hypervisor

_PIECE: Final = 256
"""Pages that are copied at once."""
_MOST: Final = 1 << 40
"""Frames that addresses of 52 bits have: what a guest puts into the M2P table may be anything."""
_XENS: Final = slice(256, 272)  # ROOT_PAGETABLE_FIRST_XEN_SLOT to _LAST_ (asm/config.h): Xen's own, in an L4 table
_TABLES: Final = (FrameType.L1, FrameType.L2, FrameType.L3, FrameType.L4)


@attrs.frozen(eq=False)
class PseudoPhysical:
    """The domain's frames at one time.

    Attributes:
        pfns: the guest's frame numbers, ascending.
        mfns: the machine frame of each.
    """

    pfns: npt.NDArray[np.int64]
    mfns: npt.NDArray[np.int64]
    _pages: npt.NDArray[np.uint64]
    _kinds: npt.NDArray[np.uint8]
    _pfn_of: npt.NDArray[np.int64]

    @classmethod
    def of(cls, hv: Hypervisor) -> PseudoPhysical:
        """Those of a hypervisor's domain, by its M2P table: where two frames claim a number the first has it."""
        frames, word = hv.frames, np.dtype(f"<u{hv.abi.m2p_entry}")
        numbers = np.frombuffer(hv.memory.array.data, word, len(frames), hv.m2p)
        owned = np.frombuffer(frames.owner, np.uint8) == GUEST
        most = min(_MOST, int(np.iinfo(word).max))  # all ones: the frame has none (INVALID_M2P_ENTRY)
        pfn_of = np.where(owned & (numbers < most), numbers.astype(np.int64), -1)
        pfns, mfns = np.unique(pfn_of, return_index=True)
        there = pfns >= 0
        used = np.fromiter(frames.types, np.int64, len(frames)) > 0
        kinds = np.where(used, np.frombuffer(frames.kind, np.uint8), FrameType.NONE).astype(np.uint8)
        return cls(pfns[there], mfns[there], hv.memory.array.view(np.uint64).reshape(-1, PAGE // 8), kinds, pfn_of)

    def ranges(self) -> list[tuple[int, int]]:
        """Begin and end of each stretch of pseudo-physical memory, ascending."""
        if not len(self.pfns):
            return []
        # A new stretch begins wherever a number is not one more than that before it.
        parts = np.split(self.pfns, np.flatnonzero(np.diff(self.pfns) != 1) + 1)
        return [(int(part[0]) << PAGE_SHIFT, int(part[-1]) + 1 << PAGE_SHIFT) for part in parts]

    def contents(self) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """Pseudo-physical address and bytes of each piece, page tables translated."""
        for first, last in self.ranges():
            begin, end = (int(np.searchsorted(self.pfns, each >> PAGE_SHIFT)) for each in (first, last))
            for start in range(begin, end, _PIECE):
                mfns = self.mfns[start : min(start + _PIECE, end)]
                pages = self._pages[mfns]
                self._translate(pages, self._kinds[mfns])
                yield int(self.pfns[start]) << PAGE_SHIFT, pages.reshape(-1).view(np.uint8)

    def _translate(self, pages: npt.NDArray[np.uint64], kinds: npt.NDArray[np.uint8]) -> None:
        """Turn entries of those that are page tables to the guest's frames; what is not the guest's is taken out."""
        tables = np.flatnonzero(np.isin(kinds, _TABLES))
        if not len(tables):
            return
        entries = pages[tables]
        entries[kinds[tables] == FrameType.L4, _XENS] = 0
        mfns = (entries & np.uint64(pte.ADDRESS)) >> np.uint64(PAGE_SHIFT)
        known = mfns < len(self._pfn_of)
        pfns = np.where(known, self._pfn_of[np.where(known, mfns, 0).astype(np.int64)], -1)
        moved = entries & np.uint64(~pte.ADDRESS & (1 << 64) - 1) | pfns.astype(np.uint64) << np.uint64(PAGE_SHIFT)
        # An entry that is not present is the guest's own word, a place in its swap for one.
        present = entries & np.uint64(pte.P) != 0
        pages[tables] = np.where(present, np.where(pfns >= 0, moved, 0), entries)
