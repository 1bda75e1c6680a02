"""``grant_table_op``: arrays of requests, each of which gets a status of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from pvops_core.machine.cpu.faults import GuestFault
from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import (
    DOMID_SELF,
    EINVAL,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    ERESTART,
    ESRCH,
    PAGE_SHIFT,
    PAGE_SIZE,
)
from pvops_xen.hypervisor.grants import mapping, moving, table
from pvops_xen.hypervisor.grants.state import MAX_FRAMES, GrantOp, GrantRefusedError, GrantStatus
from pvops_xen.public import GRANT_TABLE

if TYPE_CHECKING:
    from pvops_core.headers import Fields
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

STRETCH: Final = 1024
_COMMAND: Final = 0xFFF  # GNTTABOP_CMD_MASK: above it a preempted call keeps where it was
_CLEAN, _INVALIDATE = 1, 2  # GNTTAB_CACHE_CLEAN, GNTTAB_CACHE_INVAL


class _Request(NamedTuple):
    """What is read of a request, and the place of its status."""

    fields: Fields
    status: Fields


def _request(name: str, *fields: str) -> _Request:
    structure = GRANT_TABLE[name]
    return _Request(structure.whole(*fields), structure.part("status"))


_MAP: Final = _request("gnttab_map_grant_ref", "host_addr", "flags", "ref", "dom")
_MAPPED: Final = GRANT_TABLE["gnttab_map_grant_ref"].part("handle", "dev_bus_addr")
_UNMAP: Final = _request("gnttab_unmap_grant_ref", "host_addr", "dev_bus_addr", "handle")
_REPLACE: Final = _request("gnttab_unmap_and_replace", "host_addr", "new_addr", "handle")
_SWAP: Final = _request("gnttab_swap_grant_ref", "ref_a", "ref_b")
_TRANSFER: Final = _request("gnttab_transfer", "mfn", "domid", "ref")
_COPY: Final = _request(
    "gnttab_copy",
    *("source.u.gmfn", "source.domid", "source.offset", "dest.u.gmfn", "dest.domid", "dest.offset"),
    *("len", "flags"),
)
_SETUP: Final = _request("gnttab_setup_table", "dom", "nr_frames", "frame_list")
_STATUS_FRAMES: Final = _request("gnttab_get_status_frames", "nr_frames", "dom", "frame_list")
_QUERY: Final = _request("gnttab_query_size", "dom")
_SIZES: Final = GRANT_TABLE["gnttab_query_size"].part("nr_frames", "max_nr_frames")
_GET_VERSION: Final = GRANT_TABLE["gnttab_get_version"].whole("dom")
_VERSION: Final = GRANT_TABLE["gnttab_get_version"].part("version")
_FLUSH: Final = GRANT_TABLE["gnttab_cache_flush"].whole("a.dev_bus_addr", "offset", "length", "op")
_ARRAYS: Final = {
    int(GrantOp.MAP_GRANT_REF): _MAP.fields,
    int(GrantOp.UNMAP_GRANT_REF): _UNMAP.fields,
    int(GrantOp.UNMAP_AND_REPLACE): _REPLACE.fields,
    int(GrantOp.TRANSFER): _TRANSFER.fields,
    int(GrantOp.COPY): _COPY.fields,
    int(GrantOp.SWAP_GRANT_REF): _SWAP.fields,
    int(GrantOp.CACHE_FLUSH): _FLUSH,
}
"""Requests that come in arrays."""
_ONE: Final = {int(GrantOp.SETUP_TABLE): _SETUP.fields, int(GrantOp.GET_STATUS_FRAMES): _STATUS_FRAMES.fields}

Act = Callable[[tuple[int, ...], int], None]
"""Does one request, given its fields and its address."""


def _each(hv: Hypervisor, cpu: Vcpu, array: tuple[int, int], request: _Request, act: Act) -> int:
    """Do each request of (address, count) and store its status."""
    address, count = array
    size = request.fields.at(hv.abi.bits).form.size
    # Each request has its own status: one that is refused does not stop the others.
    for at in range(address, address + count * size, size):
        _answer(hv, cpu, at, request, partial(act, access.fetch(hv, cpu, at, request.fields), at))
    return 0


def _answer(hv: Hypervisor, cpu: Vcpu, at: int, request: _Request, act: Callable[[], None]) -> None:
    try:
        act()
        status = GrantStatus.OKAY
    except GrantRefusedError as refused:
        status = refused.status
    access.store(hv, cpu, at, request.status, status)


def _map(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    def act(fields: tuple[int, ...], at: int) -> None:
        host, flags, ref, domid = fields
        handle, bus = mapping.map_grant(hv, cpu, (host, flags), ref, domid)
        access.store(hv, cpu, at, _MAPPED, handle, bus)

    return _each(hv, cpu, (address, count), _MAP, act)


def _unmap(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    def act(fields: tuple[int, ...], at: int) -> None:
        del at
        host, device, handle = fields
        mapping.unmap_grant(hv, cpu, handle, (host, device))

    return _each(hv, cpu, (address, count), _UNMAP, act)


def _unmap_and_replace(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    def act(fields: tuple[int, ...], at: int) -> None:
        del at
        host, replacement, handle = fields
        mapping.unmap_grant(hv, cpu, handle, (host, 0), replacement)

    return _each(hv, cpu, (address, count), _REPLACE, act)


def _transfer(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    def act(fields: tuple[int, ...], at: int) -> None:
        del at
        moving.transfer(hv, *fields)

    return _each(hv, cpu, (address, count), _TRANSFER, act)


def _copy(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    def act(fields: tuple[int, ...], at: int) -> None:
        del at
        from_what, from_dom, from_offset, to_what, to_dom, to_offset, length, flags = fields
        source = moving.CopyEnd(from_what, from_dom, from_offset, bool(flags & moving.SOURCE_GREF))
        dest = moving.CopyEnd(to_what, to_dom, to_offset, bool(flags & moving.DEST_GREF))
        moving.copy(hv, source, dest, length)

    return _each(hv, cpu, (address, count), _COPY, act)


def _swap(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    def act(fields: tuple[int, ...], at: int) -> None:
        del at
        table.swap(hv, *fields)

    return _each(hv, cpu, (address, count), _SWAP, act)


# --- one request -----------------------------------------------------------------------------------------------------


def _check_domain(hv: Hypervisor, domid: int) -> None:
    """These may be asked of this domain alone; dom0 is there, but not for asking."""
    if domid not in {DOMID_SELF, hv.domain.domid}:
        raise GrantRefusedError(GrantStatus.BAD_DOMAIN if domid else GrantStatus.PERMISSION_DENIED)


def _store_frames(hv: Hypervisor, cpu: Vcpu, address: int, frames: list[int], size: int) -> None:
    try:
        access.write(hv, cpu, address, b"".join(mfn.to_bytes(size, "little") for mfn in frames))
    except (access.BadHandleError, GuestFault):
        raise GrantRefusedError(GrantStatus.BAD_VIRT_ADDR) from None


def _setup_table(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    grants = hv.domain.grants
    if count != 1:
        return -EINVAL
    domid, frames, where = access.fetch(hv, cpu, address, _SETUP.fields)
    access.check(hv.abi, where, frames * hv.abi.word)

    def act() -> None:
        _check_domain(hv, domid)
        # The toolstack's limit of frames for the table, which the guest may ask for.
        if frames > MAX_FRAMES:
            hv.log(f"d{hv.domain.domid} is limited to {MAX_FRAMES} grant-table frames")
            raise GrantRefusedError(GrantStatus.GENERAL_ERROR)
        table.grow(hv, frames)
        _store_frames(hv, cpu, where, grants.frames[:frames], hv.abi.word)

    _answer(hv, cpu, address, _SETUP, act)
    return 0


def _query_size(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    if count != 1:
        return -EINVAL
    (domid,) = access.fetch(hv, cpu, address, _QUERY.fields)

    def act() -> None:
        _check_domain(hv, domid)
        access.store(hv, cpu, address, _SIZES, len(hv.domain.grants.frames), MAX_FRAMES)

    _answer(hv, cpu, address, _QUERY, act)
    return 0


def _get_status_frames(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    grants = hv.domain.grants
    if count != 1:
        return -EINVAL
    frames, domid, where = access.fetch(hv, cpu, address, _STATUS_FRAMES.fields)
    access.check(hv.abi, where, frames * 8)

    def act() -> None:
        _check_domain(hv, domid)
        if frames > len(grants.status):
            asked = f"Requested addresses of d{hv.domain.domid} for {frames} grant status frames"
            hv.log(f"{asked}, but has only {len(grants.status)}")
            raise GrantRefusedError(GrantStatus.GENERAL_ERROR)
        _store_frames(hv, cpu, where, grants.status[:frames], 8)

    _answer(hv, cpu, address, _STATUS_FRAMES, act)
    return 0


def _set_version(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    del count
    # The version is told either way: a guest that asked for one in vain reads which it has.
    result = table.set_version(hv, access.read_u32(hv, cpu, address))
    access.write_u32(hv, cpu, address, hv.domain.grants.version)
    return result


def _get_version(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    del count
    (domid,) = access.fetch(hv, cpu, address, _GET_VERSION)
    if domid not in {DOMID_SELF, hv.domain.domid}:
        return -ESRCH if domid else -EPERM
    access.store(hv, cpu, address, _VERSION, hv.domain.grants.version)
    return 0


def _cache_flush(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    size = _FLUSH.at(hv.abi.bits).form.size
    for at in range(address, address + count * size, size):
        bus, offset, length, what = access.fetch(hv, cpu, at, _FLUSH)
        error = _flush_one(hv, bus >> PAGE_SHIFT, offset, length, what)
        if error:
            return error
    return 0


def _flush_one(hv: Hypervisor, mfn: int, offset: int, length: int, what: int) -> int:
    """Caches hold nothing here; a processor of this kind cannot drop what they hold without writing it back."""
    if offset >= PAGE_SIZE or offset + length > PAGE_SIZE or what & ~(_CLEAN | _INVALIDATE):
        return -EINVAL
    if not length or not what:
        return 0
    if mfn >= len(hv.frames):
        # No processor of this kind can drop a line without writing it back (``cache_flush``, -EOPNOTSUPP).
        return -EINVAL
    if not hv.frames.is_guests(mfn):
        return -EPERM
    return -EOPNOTSUPP if what == _INVALIDATE else 0


_OPERATIONS: Final[dict[int, Callable[[Hypervisor, Vcpu, int, int], int]]] = {
    GrantOp.MAP_GRANT_REF: _map,
    GrantOp.UNMAP_GRANT_REF: _unmap,
    GrantOp.SETUP_TABLE: _setup_table,
    GrantOp.TRANSFER: _transfer,
    GrantOp.COPY: _copy,
    GrantOp.QUERY_SIZE: _query_size,
    GrantOp.UNMAP_AND_REPLACE: _unmap_and_replace,
    GrantOp.SET_VERSION: _set_version,
    GrantOp.GET_STATUS_FRAMES: _get_status_frames,
    GrantOp.GET_VERSION: _get_version,
    GrantOp.SWAP_GRANT_REF: _swap,
    GrantOp.CACHE_FLUSH: _cache_flush,
}


def grant_table_op(hv: Hypervisor, cpu: Vcpu, command: int, argument: int, count: int) -> int:
    """``grant_table_op(cmd, uop, count)``: 0 when every request has its status, or a negative errno.

    After STRETCH requests the call is preempted.
    """
    if count & 1 << 31:  # an int that is negative (do_grant_table_op)
        return -EINVAL
    if command & _COMMAND != GrantOp.CACHE_FLUSH and command & ~_COMMAND:
        return -EINVAL
    operation = _OPERATIONS.get(command & _COMMAND)
    if operation is None:
        return -ENOSYS
    if hv.abi.bits == 32 and command in _ONE:  # compat_grant_table_op takes them for arrays, of at most one
        access.check(hv.abi, argument, count * _ONE[command].at(32).form.size)
        if not count:
            return 0
    array = _ARRAYS.get(command & _COMMAND)
    size = array.at(hv.abi.bits).form.size if array else 0
    access.check(hv.abi, argument, count * size)
    # The first part may have failed: its error goes with the continuation, or the guest would never see it.
    if not size or count <= STRETCH:
        return operation(hv, cpu, argument, count)
    error = operation(hv, cpu, argument, STRETCH)
    hv.continuation = command, argument + STRETCH * size, count - STRETCH
    return error or -ERESTART
