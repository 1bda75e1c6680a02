"""``memory_op``: questions about memory, and what only others may do (xen/common/memory.c, xen/arch/x86/mm.c)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import (
    DOMID_SELF,
    EACCES,
    EDOM,
    EINVAL,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    ESRCH,
    PAGE_SHIFT,
    MemoryOp,
)
from pvops_xen.hypervisor.memory import exchange, reservation

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

E820_MAX: Final = 1024
_E820: Final = struct.Struct("<QQI")
_FOREIGN, _RANGE = 4, 3
_M2P_PIECE: Final = 2 << 20
_RDM_SIZE: Final = {8: 16, 4: 8}  # of an xen_reserved_device_memory, by a word's bytes


def domain_error(hv: Hypervisor, domid: int) -> int:
    """0 for oneself, -EPERM for dom0, -ESRCH for who does not exist."""
    if domid in {DOMID_SELF, hv.domain.domid}:
        return 0
    return -ESRCH if domid else -EPERM


def _u16(hv: Hypervisor, cpu: Vcpu, address: int) -> int:
    return int.from_bytes(access.read(hv, cpu, address, 2), "little")


def _word(raw: bytes, index: int, word: int) -> int:
    return int.from_bytes(raw[index * word : (index + 1) * word], "little")


# --- how much memory -------------------------------------------------------------------------------------------------


def _maximum_ram_page(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    del cpu, argument
    return len(hv.frames)


def _current_reservation(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    return domain_error(hv, _u16(hv, cpu, argument)) or reservation.held(hv)


def _maximum_reservation(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    return domain_error(hv, _u16(hv, cpu, argument)) or hv.domain.nr_pages


def _maximum_gpfn(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """What the guest itself has put into shared_info, less one."""
    error = domain_error(hv, _u16(hv, cpu, argument))
    raw = hv.memory.read(hv.domain.shared_info + hv.abi.max_pfn, hv.abi.word)
    return error or max(int.from_bytes(raw, "little"), 1) - 1


# --- maps ------------------------------------------------------------------------------------------------------------


def _memory_map(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """The e820 map of the domain, if it has one."""
    regions = hv.domain.e820
    if not regions:
        return -ENOSYS
    raw = access.read(hv, cpu, argument, 2 * hv.abi.word)
    shown = regions[: int.from_bytes(raw[:4], "little")]
    access.write(hv, cpu, _word(raw, 1, hv.abi.word), b"".join(_E820.pack(*region) for region in shown))
    access.write_u32(hv, cpu, argument, len(shown))
    return 0


def _set_memory_map(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    word = hv.abi.word
    raw = access.read(hv, cpu, argument, 3 * word)
    count = int.from_bytes(raw[word : word + 4], "little")
    if count > E820_MAX:
        return -EINVAL
    error = domain_error(hv, int.from_bytes(raw[:2], "little"))
    if error:
        return error
    entries = access.read(hv, cpu, _word(raw, 2, word), _E820.size * count)
    hv.domain.e820 = tuple((base, size, kind) for base, size, kind in _E820.iter_unpack(entries))
    return 0


def _machphys_mapping(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """Where the table may be, not how far it goes: that only the hardware's domain is told."""
    abi = hv.abi
    values = abi.m2p_start, abi.m2p_end, (abi.m2p_end - abi.m2p_start) // abi.m2p_entry - 1
    access.write(hv, cpu, argument, b"".join(value.to_bytes(abi.word, "little") for value in values))
    return 0


def _machphys_mfn_list(hv: Hypervisor, cpu: Vcpu, argument: int, *, compat: bool = False) -> int:
    """The first frame of each 2 MiB of the machine-to-physical table; of 32-bit guests' there is none beside it."""
    word = hv.abi.word
    raw = access.read(hv, cpu, argument, 3 * word)
    size = 0 if compat and word == 8 else len(hv.frames) * hv.abi.m2p_entry
    count = min(int.from_bytes(raw[:4], "little"), (size + _M2P_PIECE - 1) // _M2P_PIECE)
    mfns = (hv.m2p + index * _M2P_PIECE >> PAGE_SHIFT for index in range(count))
    access.write(hv, cpu, _word(raw, 1, word), b"".join(mfn.to_bytes(word, "little") for mfn in mfns))
    access.write_u32(hv, cpu, argument + 2 * word, count)
    return 0


# --- what a paravirtualised domain has not ---------------------------------------------------------------------------


def _not_translated(hv: Hypervisor, domid: int) -> int:
    """No domain here is: neither this one nor dom0."""
    return -EACCES if domid in {0, DOMID_SELF, hv.domain.domid} else -ESRCH


def _add_to_physmap(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """Only domains whose memory Xen translates have a map to add to."""
    raw = access.read(hv, cpu, argument, 8 + 2 * hv.abi.word)
    if int.from_bytes(raw[4:8], "little") == _FOREIGN:
        return -ENOSYS
    return _not_translated(hv, int.from_bytes(raw[:2], "little"))


def _add_to_physmap_batch(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    domid, space = struct.unpack("<HH", access.read(hv, cpu, argument, 8 + 3 * hv.abi.word)[:4])
    return -EOPNOTSUPP if space == _RANGE else _not_translated(hv, domid)


def _remove_from_physmap(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    return _not_translated(hv, int.from_bytes(access.read(hv, cpu, argument, 2 * hv.abi.word)[:2], "little"))


def _claim_pages(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """Only the toolstack reserves memory."""
    wanted = reservation.read(hv, cpu, argument)
    known = wanted.domid in {0, hv.domain.domid}
    return -EINVAL if wanted.start or wanted.order or wanted.flags or not known else -EPERM


def _vnumainfo(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    domid, padding = struct.unpack("<HH36x", access.read(hv, cpu, argument, 40))
    return -EINVAL if padding else domain_error(hv, domid) or -EOPNOTSUPP


def _reserved_device_memory(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """There is none."""
    word = hv.abi.word
    flags, count = struct.unpack_from("<II", raw := access.read(hv, cpu, argument, 8 + 2 * word))
    access.check(hv.abi, int.from_bytes(raw[8 : 8 + word], "little"), count * _RDM_SIZE[word])
    if flags & ~1:
        return -EINVAL
    access.write_u32(hv, cpu, argument + 4, 0)
    return 0


def _acquire_resource(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """Resources are those of other domains, and for those who run them."""
    domid, _, _, count, padding, frame = struct.unpack_from("<HHIIIQ", access.read(hv, cpu, argument, 24 + hv.abi.word))
    if padding or frame >> 32 or frame + count >> 32:
        return -EINVAL
    return -EPERM if domid in {0, DOMID_SELF, hv.domain.domid} else -ESRCH


def _access_op(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    domid = int.from_bytes(access.read(hv, cpu, argument, 8)[2:4], "little")
    if domid in {DOMID_SELF, hv.domain.domid}:
        return -EPERM
    return -ESRCH if domid else -EINVAL


def _pod_target(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    domid = int.from_bytes(access.read(hv, cpu, argument, 32)[24:26], "little")
    return domain_error(hv, domid) or -EPERM


def _constant(hv: Hypervisor, cpu: Vcpu, argument: int, *, answer: int) -> int:
    del hv, cpu, argument
    return answer


_OPERATIONS: Final[dict[int, Callable[[Hypervisor, Vcpu, int], int]]] = {
    MemoryOp.MAXIMUM_RAM_PAGE: _maximum_ram_page,
    MemoryOp.CURRENT_RESERVATION: _current_reservation,
    MemoryOp.MAXIMUM_RESERVATION: _maximum_reservation,
    MemoryOp.MACHPHYS_MFN_LIST: _machphys_mfn_list,
    MemoryOp.ADD_TO_PHYSMAP: _add_to_physmap,
    MemoryOp.MEMORY_MAP: _memory_map,
    MemoryOp.MACHINE_MEMORY_MAP: partial(_constant, answer=-EPERM),
    MemoryOp.EXCHANGE: exchange.exchange,
    MemoryOp.MACHPHYS_MAPPING: _machphys_mapping,
    MemoryOp.SET_MEMORY_MAP: _set_memory_map,
    MemoryOp.MAXIMUM_GPFN: _maximum_gpfn,
    MemoryOp.REMOVE_FROM_PHYSMAP: _remove_from_physmap,
    MemoryOp.SET_POD_TARGET: _pod_target,
    MemoryOp.GET_POD_TARGET: _pod_target,
    MemoryOp.GET_SHARING_FREED_PAGES: partial(_constant, answer=0),
    MemoryOp.GET_SHARING_SHARED_PAGES: partial(_constant, answer=0),
    MemoryOp.ACCESS_OP: _access_op,
    MemoryOp.ADD_TO_PHYSMAP_BATCH: _add_to_physmap_batch,
    MemoryOp.CLAIM_PAGES: _claim_pages,
    MemoryOp.MACHPHYS_COMPAT_MFN_LIST: partial(_machphys_mfn_list, compat=True),
    MemoryOp.GET_VNUMAINFO: _vnumainfo,
    MemoryOp.RESERVED_DEVICE_MEMORY_MAP: _reserved_device_memory,
    MemoryOp.ACQUIRE_RESOURCE: _acquire_resource,
}


_ARCHITECTURES: Final = frozenset(
    {
        MemoryOp.MACHPHYS_MFN_LIST,
        MemoryOp.MEMORY_MAP,
        MemoryOp.MACHINE_MEMORY_MAP,
        MemoryOp.MACHPHYS_MAPPING,
        MemoryOp.SET_MEMORY_MAP,
        MemoryOp.SET_POD_TARGET,
        MemoryOp.GET_POD_TARGET,
        MemoryOp.GET_SHARING_FREED_PAGES,
        MemoryOp.GET_SHARING_SHARED_PAGES,
        MemoryOp.MACHPHYS_COMPAT_MFN_LIST,
    }
)
"""Those of ``arch_memory_op``, which knows no command with extents in it."""
_GOES_ON: Final = frozenset({MemoryOp.ADD_TO_PHYSMAP, MemoryOp.ADD_TO_PHYSMAP_BATCH, MemoryOp.ACQUIRE_RESOURCE})


def memory_op(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """``memory_op(cmd, arg)``; the upper bits of the command say how many extents have been done already."""
    kind, done = command & (1 << reservation.COMMAND_BITS) - 1, command >> reservation.COMMAND_BITS
    if kind in reservation.OPERATIONS:
        return reservation.adjust(hv, cpu, MemoryOp(kind), argument, done)
    operation = _OPERATIONS.get(kind)
    if operation is None or (done and kind in _ARCHITECTURES):
        return -ENOSYS
    if done and kind not in _GOES_ON:
        return -EINVAL
    if done >> 16 and kind != MemoryOp.ACQUIRE_RESOURCE:
        return -EDOM
    return operation(hv, cpu, argument)
