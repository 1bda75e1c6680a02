"""The frame table: who owns each machine frame, how often it is referenced, and as what (Xen's ``struct page_info``).

A frame has one type at a time. It keeps that type while type references are held; general references only keep the
frame from being freed. The table knows nothing of what page tables hold: ``validate`` walks those.
"""

import enum
from typing import Final, NamedTuple

import attrs

FREE: Final = 0
XEN: Final = 1
GUEST: Final = 2


class FrameType(enum.IntEnum):
    """What a frame is used as (``PGT_*`` of Xen 4.17)."""

    NONE = 0
    L1 = 1
    L2 = 2
    L3 = 3
    L4 = 4
    SEG_DESC = 5
    WRITABLE = 7


_TYPES: Final = {int(kind): kind for kind in FrameType}  # faster than making the enumeration's member anew

VALIDATED: Final = 1
PINNED: Final = 2
PAE_XEN_L2: Final = 4  # the second-level table of the last GiB of a PAE guest: holds Xen's own slots
ALLOCATED: Final = 8  # the domain holds the frame itself (PGC_allocated): one general reference


class FramesState(NamedTuple):
    """The columns of a :class:`FrameTable`, in a snapshot."""

    owner: bytes
    kind: bytes
    flags: bytes
    refs: tuple[int, ...]
    types: tuple[int, ...]
    linear: tuple[int, ...]
    stamp: tuple[int, ...]


@attrs.define
class FrameTable:
    """One row a machine frame, kept as columns: a row is read far more often than it is passed about.

    Attributes:
        owner: FREE, XEN or GUEST.
        kind: a FrameType.
        flags: VALIDATED, PINNED, PAE_XEN_L2, ALLOCATED.
        refs: general references.
        types: type references.
        linear: uses of the frame as a linear table (negative) or linear entries it holds (positive).
        stamp: flush epoch when the last type reference was dropped, for the flush that a change of type needs.
    """

    owner: bytearray
    kind: bytearray
    flags: bytearray
    refs: list[int]
    types: list[int]
    linear: list[int]
    stamp: list[int]

    @classmethod
    def of_size(cls, frames: int) -> "FrameTable":
        """A table of that many frames, all free."""
        zeros = [0] * frames
        return cls(bytearray(frames), bytearray(frames), bytearray(frames), zeros[:], zeros[:], zeros[:], zeros[:])

    def __len__(self) -> int:
        return len(self.owner)

    def give(self, mfn: int, owner: int) -> None:
        """Hand a free frame to an owner, who holds it with one general reference."""
        self.owner[mfn] = owner
        self.kind[mfn] = FrameType.NONE
        # PGC_allocated: the domain's own reference, dropped when it gives the frame back.
        self.flags[mfn] = ALLOCATED
        self.refs[mfn] = 1
        self.types[mfn] = 0
        self.linear[mfn] = 0

    def share_writable(self, mfn: int) -> None:
        """Xen's own page that the guest may map writable (shared_info): it never becomes a page table."""
        self.give(mfn, GUEST)
        self.kind[mfn] = FrameType.WRITABLE
        self.flags[mfn] = VALIDATED
        # Never 0: a type that is held for ever keeps the frame from becoming a page table.
        self.types[mfn] = 1

    def is_guests(self, mfn: int) -> bool:
        """The frame exists and the guest owns it."""
        return 0 <= mfn < len(self.owner) and self.owner[mfn] == GUEST

    def get_page(self, mfn: int) -> bool:
        """As Xen's own, a general reference of a frame of the guest's; False if it is not."""
        if 0 <= mfn < len(self.owner) and self.owner[mfn] == GUEST:
            self.refs[mfn] += 1
            return True
        return False

    def put_page(self, mfn: int) -> None:
        """As Xen's own, drop a general reference; the last one frees the frame."""
        self.refs[mfn] -= 1
        # PGC_count_mask has come to 0: ``free_domheap_page``.
        if self.refs[mfn] == 0:
            self.owner[mfn] = FREE
            self.kind[mfn] = FrameType.NONE
            self.flags[mfn] = 0

    def in_use_as(self, mfn: int) -> FrameType:
        """The type for which references are held; NONE if none are."""
        return _TYPES[self.kind[mfn]] if self.types[mfn] else FrameType.NONE

    def save(self) -> "FramesState":
        """State for a snapshot."""
        flat = bytes(self.owner), bytes(self.kind), bytes(self.flags)
        return FramesState(*flat, tuple(self.refs), tuple(self.types), tuple(self.linear), tuple(self.stamp))

    def load(self, saved: "FramesState") -> None:
        """Take over what ``save`` gave in place: others hold the table itself."""
        self.owner[:], self.kind[:], self.flags[:] = saved.owner, saved.kind, saved.flags
        self.refs[:], self.types[:], self.linear[:], self.stamp[:] = saved[3:]
