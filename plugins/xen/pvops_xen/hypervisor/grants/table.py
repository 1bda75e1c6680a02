"""The table itself: its frames and entries, their versions, and how they grow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_xen.hypervisor.abi import EBUSY, EINVAL, PAGE_SHIFT, PAGE_SIZE
from pvops_xen.hypervisor.grants.state import (
    ENTRY_SIZE,
    MAX_FRAMES,
    RESERVED_ENTRIES,
    Active,
    GrantRefusedError,
    GrantStatus,
    Gtf,
    status_frames,
)
from pvops_xen.hypervisor.memory.frames import FREE, XEN, FrameType
from pvops_xen.public import GRANT_TABLE

if TYPE_CHECKING:
    from pvops_xen.hypervisor.core import Hypervisor

FRAMES_NEEDED: Final = MAX_FRAMES + status_frames(MAX_FRAMES)
"""Frames of Xen's own that a domain's table may come to need."""
ERANGE: Final = 34
_V1: Final = GRANT_TABLE["grant_entry_v1"].whole("flags", "domid", "frame")
_V2: Final = GRANT_TABLE["grant_entry_v2"].whole(
    *("sub_page.hdr.flags", "sub_page.hdr.domid", "sub_page.page_off", "sub_page.length", "sub_page.frame")
)
_IN_USE: Final = Gtf.READING | Gtf.WRITING


@attrs.frozen
class GrantEntry:
    """An entry of either version.

    Attributes:
        flags: ``Gtf``.
        domid: to whom.
        frame: machine frame; of a transitive entry the reference in the other domain's table.
        low, high: of version 2, 16 bits each: offset and length of the part granted, or the other domain.
    """

    flags: int
    domid: int
    frame: int
    low: int = 0
    high: int = 0

    @property
    def type(self) -> int:
        """``GTF_type_mask``."""
        return self.flags & Gtf.TYPE_MASK


def _place(hv: Hypervisor, ref: int) -> int:
    """Machine address of an entry."""
    grants = hv.domain.grants
    page, slot = divmod(ref, PAGE_SIZE // ENTRY_SIZE[grants.version])
    return (grants.frames[page] << PAGE_SHIFT) + slot * ENTRY_SIZE[grants.version]


def read_entry(hv: Hypervisor, ref: int) -> GrantEntry:
    """What the guest has put into its table."""
    form = (_V1 if hv.domain.grants.version == 1 else _V2).at(hv.abi.bits).form
    flags, domid, *parts, frame = form.unpack(hv.memory.read(_place(hv, ref), form.size))
    low, high = parts or (0, 0)
    return GrantEntry(flags, domid, frame, low, high)


def write_entry(hv: Hypervisor, ref: int, entry: GrantEntry) -> None:
    """Change an entry."""
    if hv.domain.grants.version == 1:
        data = _V1.at(hv.abi.bits).form.pack(entry.flags, entry.domid, entry.frame & 0xFFFF_FFFF)
    else:
        data = _V2.at(hv.abi.bits).form.pack(entry.flags, entry.domid, entry.low, entry.high, entry.frame)
    hv.memory.write(_place(hv, ref), data)


def _status_place(hv: Hypervisor, ref: int) -> int:
    """Machine address of the word with an entry's reading and writing bits: its flags, or a status word."""
    grants = hv.domain.grants
    if grants.version == 1:
        # Of version 1 the flags are in the entry; version 2 has them in a page of their own.
        return _place(hv, ref)
    page, slot = divmod(ref, PAGE_SIZE // 2)
    return (grants.status[page] << PAGE_SHIFT) + 2 * slot


def read_status(hv: Hypervisor, ref: int) -> int:
    """The word with the reading and writing bits."""
    return int.from_bytes(hv.memory.read(_status_place(hv, ref), 2), "little")


def mark(hv: Hypervisor, ref: int, bits: int) -> None:
    """Tell the guest that its grant is being read or written."""
    hv.memory.write(_status_place(hv, ref), (read_status(hv, ref) | bits).to_bytes(2, "little"))


def settle(hv: Hypervisor, ref: int) -> None:
    """Take away the marks of what nobody does any more, and forget a grant that nobody uses."""
    grants = hv.domain.grants
    active = grants.active.get(ref)
    keep = 0
    if active is not None and any(active.counts):
        # Both marks are one word: the guest polls it to know when it may take the page back.
        keep = Gtf.READING | (Gtf.WRITING if active.written else 0)
    else:
        grants.active.pop(ref, None)
    word = read_status(hv, ref) & (~_IN_USE | keep) & 0xFFFF
    hv.memory.write(_status_place(hv, ref), word.to_bytes(2, "little"))


# --- growing and versions --------------------------------------------------------------------------------------------


def _take(hv: Hypervisor) -> int:
    """A clean frame of Xen's, shared with the guest."""
    mfn = hv.domain.grants.spare.pop(0)
    hv.memory.write(mfn << PAGE_SHIFT, bytes(PAGE_SIZE))
    # Shared with the guest, and Xen's: it may map the page, never own it.
    hv.frames.share_writable(mfn)
    return mfn


def grow(hv: Hypervisor, frames: int) -> None:
    """gnttab_grow_table(): have so many frames of entries, and the status frames that go with them."""
    grants = hv.domain.grants
    while len(grants.frames) < frames:
        grants.frames.append(_take(hv))
    if grants.version == 2:
        while len(grants.status) < status_frames(len(grants.frames)):
            grants.status.append(_take(hv))


def seed(hv: Hypervisor, ref: int, mfn: int) -> None:
    """What the toolstack grants to dom0, which keeps it mapped: the frame of the console or of xenstore."""
    write_entry(hv, ref, GrantEntry(Gtf.PERMIT_ACCESS | _IN_USE, 0, mfn))
    hv.domain.grants.active[ref] = Active(0, mfn, writers=1)
    # dom0 holds the frame as a writable mapping would.
    if hv.frames.get_page(mfn):
        hv.validator.get_type(mfn, FrameType.WRITABLE)


def set_version(hv: Hypervisor, version: int) -> int:
    """gnttab_set_version(): all entries are cleared but the toolstack's. 0 or a negative errno."""
    grants = hv.domain.grants
    if version not in {1, 2}:
        return -EINVAL
    if version == grants.version:
        return 0
    # Grants that somebody uses cannot change their form under him (``gnttab_set_version``).
    if any(ref >= RESERVED_ENTRIES for ref in grants.active):
        hv.log(f"tried to change grant table version to {version}, but some grant entries still in use")
        return -EBUSY
    reserved = [(read_entry(hv, ref), read_status(hv, ref)) for ref in range(RESERVED_ENTRIES)]
    if version == 1:
        if any(_not_in_v1(entry) for entry, _ in reserved):
            hv.log("tried to change grant table version to 1 with non-representable entries")
            return -ERANGE
        # A status frame that the guest has mapped would become an ordinary page of Xen's.
        if not _drop_status(hv):
            return -EBUSY
    # Cleared, since an entry of the one form means something else in the other.
    for mfn in grants.frames:
        hv.memory.write(mfn << PAGE_SHIFT, bytes(PAGE_SIZE))
    grants.version = version
    grow(hv, len(grants.frames))
    for ref, (entry, status) in enumerate(reserved):
        _carry_over(hv, ref, entry, status)
    return 0


def _not_in_v1(entry: GrantEntry) -> bool:
    return entry.type == Gtf.TRANSITIVE or (entry.type == Gtf.PERMIT_ACCESS and entry.frame >> 32 != 0)


def _carry_over(hv: Hypervisor, ref: int, entry: GrantEntry, status: int) -> None:
    if hv.domain.grants.version == 1:
        # Only an entry that permits access says the same in both forms.
        if entry.type == Gtf.PERMIT_ACCESS:
            write_entry(hv, ref, GrantEntry(entry.flags | status, entry.domid, entry.frame))
        return
    write_entry(hv, ref, GrantEntry(entry.flags & ~_IN_USE, entry.domid, entry.frame))
    mark(hv, ref, entry.flags & _IN_USE)


def _drop_status(hv: Hypervisor) -> bool:
    """Free the status frames, unless the guest has one of them mapped."""
    grants = hv.domain.grants
    if any(hv.frames.refs[mfn] != 1 for mfn in grants.status):
        return False
    for mfn in grants.status:
        hv.frames.owner[mfn] = FREE
        hv.frames.give(mfn, XEN)
    # Back to the front, so that the next growth takes the same frames again.
    grants.spare[:0] = grants.status
    grants.status.clear()
    return True


def swap(hv: Hypervisor, first: int, second: int) -> None:
    """GNTTABOP_swap_grant_ref, one element.

    Raises:
        RefusedError: an entry is not there, or in use.
    """
    grants = hv.domain.grants
    if max(first, second) >= grants.entries:
        raise GrantRefusedError(GrantStatus.BAD_GNTREF)
    if first == second:
        return
    if first in grants.active or second in grants.active:
        raise GrantRefusedError(GrantStatus.EAGAIN)
    entries = [read_entry(hv, ref) for ref in (first, second)]
    marks = [read_status(hv, ref) for ref in (first, second)]
    for ref, entry, word in zip((second, first), entries, marks, strict=True):
        write_entry(hv, ref, entry)
        # Version 1 carries the marks in the entry, which has been exchanged already.
        if grants.version == 2:
            hv.memory.write(_status_place(hv, ref), word.to_bytes(2, "little"))
