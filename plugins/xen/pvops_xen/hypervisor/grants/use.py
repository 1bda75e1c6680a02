"""Using a grant: the checks and the marks that come before a mapping or a copy.

There are two domains here, this one and dom0. dom0's table exists and grants nothing; of no other domain is there one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_xen.hypervisor.abi import DOMID_SELF
from pvops_xen.hypervisor.grants import table
from pvops_xen.hypervisor.grants.state import ENTRY_SIZE, Active, GrantRefusedError, GrantStatus, Gtf

if TYPE_CHECKING:
    from pvops_xen.hypervisor.core import Hypervisor

_DOM0_ENTRIES = 4096 // ENTRY_SIZE[1]


def is_own(hv: Hypervisor, domid: int, *, self_too: bool) -> bool:
    """The domain is this one, by number or where that counts as DOMID_SELF; False for dom0.

    Raises:
        RefusedError: there is no such domain.
    """
    if domid == hv.domain.domid or (self_too and domid == DOMID_SELF):
        return True
    if domid:
        raise GrantRefusedError(GrantStatus.BAD_DOMAIN)
    return False


def nothing_of_dom0(ref: int) -> GrantRefusedError:
    """What using a grant of dom0's ends in."""
    # dom0's table exists and is empty: a reference beyond its end is bad, one within grants nothing.
    return GrantRefusedError(GrantStatus.BAD_GNTREF if ref >= _DOM0_ENTRIES else GrantStatus.GENERAL_ERROR)


def own_frame(hv: Hypervisor, mfn: int) -> int:
    """``get_paged_frame``: a frame of this domain's, with a general reference taken.

    Raises:
        RefusedError: it is not this domain's.
    """
    if not hv.frames.get_page(mfn):
        raise GrantRefusedError(GrantStatus.BAD_PAGE)
    return mfn


def begin(hv: Hypervisor, ref: int, *, readonly: bool, copying: bool) -> Active:
    """Check that this domain may use a grant of its own so, and mark the entry; the caller counts the use.

    The caller holds no reference of the frame yet.

    Raises:
        RefusedError: it may not.
    """
    grants = hv.domain.grants
    if ref >= grants.entries:
        raise GrantRefusedError(GrantStatus.BAD_GNTREF)
    active = grants.active.get(ref)
    # A use of another kind than the first would have to change what is held; Xen refuses it too.
    if active is not None and (active.domid != hv.domain.domid or active.full or (active.partial and not copying)):
        raise GrantRefusedError(GrantStatus.GENERAL_ERROR)
    # Marked already, and no right is needed that the first use had not.
    if active is not None and (readonly or active.written):
        return active
    entry = table.read_entry(hv, ref)
    if active is None:
        _check_type(hv, entry, copying=copying)
    if entry.flags & Gtf.READONLY and not readonly:
        hv.log("Attempt to write-pin a r/o grant entry")
        raise GrantRefusedError(GrantStatus.GENERAL_ERROR)
    if grants.version == 2 and entry.type == Gtf.TRANSITIVE:
        raise _transitive(hv, entry)
    if active is None:
        if not hv.frames.is_guests(entry.frame):
            raise GrantRefusedError(GrantStatus.BAD_PAGE)
        active = Active(hv.domain.domid, entry.frame)
        if entry.flags & Gtf.SUB_PAGE and grants.version == 2:
            active.start, active.length, active.partial = entry.low, entry.high, True
        grants.active[ref] = active
    # The guest sees that its page is in use before anybody touches it (``_set_status``).
    table.mark(hv, ref, Gtf.READING if readonly else Gtf.READING | Gtf.WRITING)
    return active


def _check_type(hv: Hypervisor, entry: table.GrantEntry, *, copying: bool) -> None:
    """The entry grants access, to this domain, and a mapping gets nothing but whole frames."""
    # A part of a frame may be copied from, and is of no use to a mapping.
    kind = entry.flags & (Gtf.TYPE_MASK if copying else Gtf.TYPE_MASK | Gtf.SUB_PAGE)
    transitive = hv.domain.grants.version == 2 and kind == Gtf.TRANSITIVE
    if entry.domid != hv.domain.domid or not (kind == Gtf.PERMIT_ACCESS or transitive):
        hv.log(f"Bad flags ({entry.flags:x}) or dom ({entry.domid}); expected d{hv.domain.domid}")
        raise GrantRefusedError(GrantStatus.GENERAL_ERROR)


def _transitive(hv: Hypervisor, entry: table.GrantEntry) -> GrantRefusedError:
    """A grant passed on from another domain: this one's own cannot be, and dom0 grants nothing to pass on."""
    if entry.low == 0 and hv.domain.domid != 0:
        return nothing_of_dom0(entry.frame & 0xFFFF_FFFF)
    return GrantRefusedError(GrantStatus.GENERAL_ERROR)


def end(hv: Hypervisor, ref: int) -> None:
    """A use was counted off again: the marks follow."""
    table.settle(hv, ref)
