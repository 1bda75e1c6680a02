"""``grant_table_op``: arrays of requests, each of which gets a status of its own."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs

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

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

STRETCH: Final = 1024
_COMMAND: Final = 0xFFF
_CLEAN, _INVALIDATE = 1, 2
_S16: Final = struct.Struct("<h")


@attrs.frozen
class GrantLayout:
    """Where the fields of a request are: its size, its format for ``struct``, and the offset of its status."""

    size: int
    format: str
    status: int


_MAP: Final = GrantLayout(32, "<QIIH", 18)
_UNMAP: Final = GrantLayout(24, "<QQI", 20)
_SWAP: Final = GrantLayout(12, "<II", 8)
_TRANSFER: Final = {64: GrantLayout(24, "<QH2xI", 16), 32: GrantLayout(16, "<IH2xI", 12)}
_COPY: Final = {64: GrantLayout(40, "<QHH4xQHH4xHH", 36), 32: GrantLayout(24, "<IHHIHHHH", 20)}
_SETUP: Final = {64: GrantLayout(24, "<H2xI8xQ", 8), 32: GrantLayout(16, "<H2xI4xI", 8)}
_STATUS_FRAMES: Final = {64: GrantLayout(16, "<IH2xQ", 6), 32: GrantLayout(12, "<IH2xI", 6)}
_ONE: Final = {int(GrantOp.SETUP_TABLE): _SETUP[32], int(GrantOp.GET_STATUS_FRAMES): _STATUS_FRAMES[32]}
_QUERY: Final = GrantLayout(16, "<H", 12)

Act = Callable[[tuple[int, ...], int], None]
"""Does one request, given its fields and its address."""


def _each(hv: Hypervisor, cpu: Vcpu, array: tuple[int, int], layout: GrantLayout, act: Act) -> int:
    """Do each request of (address, count) and store its status."""
    address, count = array
    for at in range(address, address + count * layout.size, layout.size):
        fields = struct.unpack_from(layout.format, access.read(hv, cpu, at, layout.size))
        _answer(hv, cpu, at, layout, partial(act, fields, at))
    return 0


def _answer(hv: Hypervisor, cpu: Vcpu, at: int, layout: GrantLayout, act: Callable[[], None]) -> None:
    try:
        act()
        status = GrantStatus.OKAY
    except GrantRefusedError as refused:
        status = refused.status
    access.write(hv, cpu, at + layout.status, _S16.pack(status))


def _map(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    def act(fields: tuple[int, ...], at: int) -> None:
        host, flags, ref, domid = fields
        handle, bus = mapping.map_grant(hv, cpu, (host, flags), ref, domid)
        access.write(hv, cpu, at + 20, struct.pack("<IQ", handle, bus))

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

    return _each(hv, cpu, (address, count), _UNMAP, act)


def _transfer(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    def act(fields: tuple[int, ...], at: int) -> None:
        del at
        moving.transfer(hv, *fields)

    return _each(hv, cpu, (address, count), _TRANSFER[hv.abi.bits], act)


def _copy(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    def act(fields: tuple[int, ...], at: int) -> None:
        del at
        from_what, from_dom, from_offset, to_what, to_dom, to_offset, length, flags = fields
        source = moving.End(from_what, from_dom, from_offset, bool(flags & moving.SOURCE_GREF))
        dest = moving.End(to_what, to_dom, to_offset, bool(flags & moving.DEST_GREF))
        moving.copy(hv, source, dest, length)

    return _each(hv, cpu, (address, count), _COPY[hv.abi.bits], act)


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
    layout, grants = _SETUP[hv.abi.bits], hv.domain.grants
    if count != 1:
        return -EINVAL
    domid, frames, where = struct.unpack_from(layout.format, access.read(hv, cpu, address, layout.size))
    access.check(hv.abi, where, frames * hv.abi.word)

    def act() -> None:
        _check_domain(hv, domid)
        if frames > MAX_FRAMES:
            hv.log(f"d{hv.domain.domid} is limited to {MAX_FRAMES} grant-table frames")
            raise GrantRefusedError(GrantStatus.GENERAL_ERROR)
        table.grow(hv, frames)
        _store_frames(hv, cpu, where, grants.frames[:frames], hv.abi.word)

    _answer(hv, cpu, address, layout, act)
    return 0


def _query_size(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    if count != 1:
        return -EINVAL
    (domid,) = struct.unpack_from(_QUERY.format, access.read(hv, cpu, address, _QUERY.size))

    def act() -> None:
        _check_domain(hv, domid)
        access.write(hv, cpu, address + 4, struct.pack("<II", len(hv.domain.grants.frames), MAX_FRAMES))

    _answer(hv, cpu, address, _QUERY, act)
    return 0


def _get_status_frames(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    layout, grants = _STATUS_FRAMES[hv.abi.bits], hv.domain.grants
    if count != 1:
        return -EINVAL
    frames, domid, where = struct.unpack_from(layout.format, access.read(hv, cpu, address, layout.size))
    access.check(hv.abi, where, frames * 8)

    def act() -> None:
        _check_domain(hv, domid)
        if frames > len(grants.status):
            asked = f"Requested addresses of d{hv.domain.domid} for {frames} grant status frames"
            hv.log(f"{asked}, but has only {len(grants.status)}")
            raise GrantRefusedError(GrantStatus.GENERAL_ERROR)
        _store_frames(hv, cpu, where, grants.status[:frames], 8)

    _answer(hv, cpu, address, layout, act)
    return 0


def _set_version(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    del count
    result = table.set_version(hv, access.read_u32(hv, cpu, address))
    access.write_u32(hv, cpu, address, hv.domain.grants.version)
    return result


def _get_version(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    del count
    domid = int.from_bytes(access.read(hv, cpu, address, 8)[:2], "little")
    if domid not in {DOMID_SELF, hv.domain.domid}:
        return -ESRCH if domid else -EPERM
    access.write_u32(hv, cpu, address + 4, hv.domain.grants.version)
    return 0


def _cache_flush(hv: Hypervisor, cpu: Vcpu, address: int, count: int) -> int:
    for at in range(address, address + 16 * count, 16):
        bus, offset, length, what = struct.unpack("<QHHI", access.read(hv, cpu, at, 16))
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
        return -EINVAL
    if not hv.frames.is_guests(mfn):
        return -EPERM
    return -EOPNOTSUPP if what == _INVALIDATE else 0


def _size(command: int, bits: int) -> int:
    """Bytes of a request that comes in arrays; 0 of one that does not."""
    sizes = {
        GrantOp.MAP_GRANT_REF: _MAP.size,
        GrantOp.UNMAP_GRANT_REF: _UNMAP.size,
        GrantOp.UNMAP_AND_REPLACE: _UNMAP.size,
        GrantOp.TRANSFER: _TRANSFER[bits].size,
        GrantOp.COPY: _COPY[bits].size,
        GrantOp.SWAP_GRANT_REF: _SWAP.size,
        GrantOp.CACHE_FLUSH: 16,
    }
    return sizes.get(GrantOp(command), 0)


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
    if count & 1 << 31:
        return -EINVAL
    if command & _COMMAND != GrantOp.CACHE_FLUSH and command & ~_COMMAND:
        return -EINVAL
    operation = _OPERATIONS.get(command & _COMMAND)
    if operation is None:
        return -ENOSYS
    if hv.abi.bits == 32 and command in _ONE:  # compat_grant_table_op takes them for arrays, of at most one
        access.check(hv.abi, argument, count * _ONE[command].size)
        if not count:
            return 0
    size = _size(command & _COMMAND, hv.abi.bits)
    access.check(hv.abi, argument, count * size)
    if not size or count <= STRETCH:
        return operation(hv, cpu, argument, count)
    error = operation(hv, cpu, argument, STRETCH)
    hv.continuation = command, argument + STRETCH * size, count - STRETCH
    return error or -ERESTART
