"""copy and transfer: bytes from frame to frame, and frames from domain to domain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_xen.hypervisor.abi import DOMID_SELF, PAGE_SHIFT, PAGE_SIZE
from pvops_xen.hypervisor.grants import table, use
from pvops_xen.hypervisor.grants.state import GrantRefusedError, GrantStatus, Gtf
from pvops_xen.hypervisor.memory.frames import ALLOCATED, GUEST, FrameType

if TYPE_CHECKING:
    from pvops_xen.hypervisor.core import Hypervisor

SOURCE_GREF: Final = 1  # GNTCOPY_source_gref and _dest_gref (public/grant_table.h)
DEST_GREF: Final = 2


@attrs.frozen
class CopyEnd:
    """One end of a copy: a grant reference or a frame, of a domain, and where in it the bytes lie."""

    what: int
    domid: int
    offset: int
    granted: bool


@attrs.frozen
class _Claim:
    """A frame that may be copied from or to: its part from ``start``, and the grant that says so, if one does."""

    mfn: int
    start: int
    length: int
    ref: int | None


def copy(hv: Hypervisor, source: CopyEnd, dest: CopyEnd, length: int) -> None:
    """GNTTABOP_copy, one element.

    Raises:
        RefusedError: an end is not there, not allowed, or too short.
    """
    owned = []
    for end in (source, dest):
        # A frame that is named by its number must be the caller's own.
        if end.domid != DOMID_SELF and not end.granted:
            raise GrantRefusedError(GrantStatus.PERMISSION_DENIED)
        owned.append(use.is_own(hv, end.domid, self_too=True))
    read = _claim(hv, source, own=owned[0], readonly=True)
    try:
        written = _claim(hv, dest, own=owned[1], readonly=False)
        try:
            _copy_bytes(hv, (source, read), (dest, written), length)
        finally:
            _release(hv, written, readonly=False)
    finally:
        _release(hv, read, readonly=True)


def _claim(hv: Hypervisor, end: CopyEnd, *, own: bool, readonly: bool) -> _Claim:
    ref = None
    start, length = 0, PAGE_SIZE
    if not own:
        raise use.nothing_of_dom0(end.what)
    if end.granted:
        ref = end.what & 0xFFFF_FFFF
        active = use.begin(hv, ref, readonly=readonly, copying=True)
        mfn, start, length = active.mfn, active.start, active.length
        _count(hv, ref, 1, readonly=readonly)
        if not hv.frames.get_page(mfn):
            _count(hv, ref, -1, readonly=readonly)
            raise GrantRefusedError(GrantStatus.BAD_PAGE)
    else:
        mfn = use.own_frame(hv, end.what)
    if not readonly and hv.validator.get_type(mfn, FrameType.WRITABLE):
        hv.log(f"Could not get writable frame {mfn:x}")
        hv.frames.put_page(mfn)
        if ref is not None:
            _count(hv, ref, -1, readonly=readonly)
        raise GrantRefusedError(GrantStatus.GENERAL_ERROR)
    return _Claim(mfn, start, length, ref)


def _count(hv: Hypervisor, ref: int, step: int, *, readonly: bool) -> None:
    active = hv.domain.grants.active[ref]
    if readonly:
        active.readers += step
    else:
        active.writers += step
    if step < 0:
        use.end(hv, ref)


def _release(hv: Hypervisor, claim: _Claim, *, readonly: bool) -> None:
    if readonly:
        hv.frames.put_page(claim.mfn)
    else:
        hv.validator.put_page_and_type(claim.mfn)
    if claim.ref is not None:
        _count(hv, claim.ref, -1, readonly=readonly)


def _copy_bytes(hv: Hypervisor, source: tuple[CopyEnd, _Claim], dest: tuple[CopyEnd, _Claim], length: int) -> None:
    # Within a page each: a copy over a page's end is an error of the request.
    for end, _ in (source, dest):
        if end.offset + length > PAGE_SIZE:
            raise GrantRefusedError(GrantStatus.BAD_COPY_ARG)
    # A grant may be of a part of a frame (GTF_sub_page), and the copy must lie within.
    for end, claim in (source, dest):
        if end.offset < claim.start or end.offset + length > claim.start + claim.length:
            raise GrantRefusedError(GrantStatus.GENERAL_ERROR)
    data = hv.memory.read((source[1].mfn << PAGE_SHIFT) + source[0].offset, length)
    hv.memory.write((dest[1].mfn << PAGE_SHIFT) + dest[0].offset, data)


# --- transfer --------------------------------------------------------------------------------------------------------


def transfer(hv: Hypervisor, mfn: int, domid: int, ref: int) -> None:
    """GNTTABOP_transfer, one element: the frame leaves this domain, and is lost where nobody takes it.

    Raises:
        RefusedError: it could not be taken from this domain, or nobody takes it.
    """
    frames = hv.frames
    # Only a frame that nobody else holds may leave the domain (``steal_page``).
    if not frames.is_guests(mfn) or not frames.flags[mfn] & ALLOCATED or frames.refs[mfn] != 1:
        raise GrantRefusedError(GrantStatus.BAD_PAGE)
    hv.set_pfn_of(mfn, (1 << 64) - 1)
    frames.put_page(mfn)
    if not use.is_own(hv, domid, self_too=False) or not _accepted(hv, ref):
        raise GrantRefusedError(GrantStatus.GENERAL_ERROR)
    frames.give(mfn, GUEST)
    entry = table.read_entry(hv, ref)
    # What was transferred stays with the entry until the guest takes it.
    flags = entry.flags | Gtf.TRANSFER_COMPLETED
    table.write_entry(hv, ref, attrs.evolve(entry, flags=flags, frame=mfn))


def _accepted(hv: Hypervisor, ref: int) -> bool:
    """The entry waits for a frame of this domain's; from now on it is committed to it."""
    if ref >= hv.domain.grants.entries:
        return False
    entry = table.read_entry(hv, ref)
    if entry.flags != Gtf.ACCEPT_TRANSFER or entry.domid != hv.domain.domid:
        return False
    # Committed, so that nobody else takes it before the frame is in.
    table.write_entry(hv, ref, attrs.evolve(entry, flags=entry.flags | Gtf.TRANSFER_COMMITTED))
    return True
