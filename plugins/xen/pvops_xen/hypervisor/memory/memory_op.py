"""``memory_op``: questions about memory, and what only others may do (xen/common/memory.c, xen/arch/x86/mm.c)."""

from __future__ import annotations

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
from pvops_xen.public import E820, MEMORY

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

E820_MAX: Final = 1024  # E820MAX (asm/e820.h)
_FOREIGN, _RANGE = 4, 3
_M2P_PIECE: Final = 2 << 20  # XENMEM_machphys_mfn_list lists superpages
_E820: Final = E820["e820entry"].whole("addr", "size", "type")
_DOMAIN: Final = MEMORY["xen_memory_domain"].whole("domid")
_MAP: Final = MEMORY["xen_memory_map"].whole("nr_entries", "buffer")
_MAP_ENTRIES: Final = MEMORY["xen_memory_map"].part("nr_entries")
_FOREIGN_MAP: Final = MEMORY["xen_foreign_memory_map"].whole("domid", "map.nr_entries", "map.buffer")
_MAPPING: Final = MEMORY["xen_machphys_mapping"].whole("v_start", "v_end", "max_mfn")
_MFN_LIST: Final = MEMORY["xen_machphys_mfn_list"].whole("max_extents", "extent_start")
_MFN_LIST_EXTENTS: Final = MEMORY["xen_machphys_mfn_list"].part("nr_extents")
_ADD: Final = MEMORY["xen_add_to_physmap"].whole("domid", "space")
_ADD_BATCH: Final = MEMORY["xen_add_to_physmap_batch"].whole("domid", "space")
_REMOVE: Final = MEMORY["xen_remove_from_physmap"].whole("domid")
_VNUMA: Final = MEMORY["xen_vnuma_topology_info"].whole("domid", "pad")
_RDM: Final = MEMORY["xen_reserved_device_memory"]
_RDM_MAP: Final = MEMORY["xen_reserved_device_memory_map"].whole("flags", "nr_entries", "buffer")
_RDM_ENTRIES: Final = MEMORY["xen_reserved_device_memory_map"].part("nr_entries")
_RESOURCE: Final = MEMORY["xen_mem_acquire_resource"].whole("domid", "nr_frames", "pad", "frame")
_ACCESS: Final = MEMORY["xen_mem_access_op"].part("op", "access", "domid", "nr")
_POD: Final = MEMORY["xen_pod_target"].whole("domid")


def domain_error(hv: Hypervisor, domid: int) -> int:
    """0 for oneself, -EPERM for dom0, -ESRCH for who does not exist."""
    if domid in {DOMID_SELF, hv.domain.domid}:
        return 0
    # dom0 exists, and only the privileged may name it; others do not.
    return -ESRCH if domid else -EPERM


# --- how much memory -------------------------------------------------------------------------------------------------


def _maximum_ram_page(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    del cpu, argument
    # The highest frame there is, in Xen ``max_page``; guests size their tables by it.
    return len(hv.frames)


def _current_reservation(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    return domain_error(hv, *access.fetch(hv, cpu, argument, _DOMAIN)) or reservation.held(hv)


def _maximum_reservation(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    return domain_error(hv, *access.fetch(hv, cpu, argument, _DOMAIN)) or hv.domain.nr_pages


def _maximum_gpfn(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """What the guest itself has put into shared_info, less one."""
    error = domain_error(hv, *access.fetch(hv, cpu, argument, _DOMAIN))
    raw = hv.memory.read(hv.domain.shared_info + hv.abi.max_pfn, hv.abi.word)
    return error or max(int.from_bytes(raw, "little"), 1) - 1


# --- maps ------------------------------------------------------------------------------------------------------------


def _memory_map(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """The e820 map of the domain, if it has one."""
    regions = hv.domain.e820
    if not regions:
        # There is none (-ENOSYS) until the toolstack, or the domain itself, has set one.
        return -ENOSYS
    room, buffer = access.fetch(hv, cpu, argument, _MAP)
    shown, form = regions[:room], _E820.at(hv.abi.bits).form
    access.write(hv, cpu, buffer, b"".join(form.pack(*region) for region in shown))
    access.store(hv, cpu, argument, _MAP_ENTRIES, len(shown))
    return 0


def _set_memory_map(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    domid, count, buffer = access.fetch(hv, cpu, argument, _FOREIGN_MAP)
    if count > E820_MAX:
        return -EINVAL
    error = domain_error(hv, domid)
    if error:
        return error
    form = _E820.at(hv.abi.bits).form
    entries = access.read(hv, cpu, buffer, form.size * count)
    hv.domain.e820 = tuple((base, size, kind) for base, size, kind in form.iter_unpack(entries))
    return 0


def _machphys_mapping(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """Where the table may be, not how far it goes: that only the hardware's domain is told."""
    # ``arch_memory_op``: the whole window, whose size follows from the addresses alone.
    abi = hv.abi
    values = abi.m2p_start, abi.m2p_end, (abi.m2p_end - abi.m2p_start) // abi.m2p_entry - 1
    access.store(hv, cpu, argument, _MAPPING, *values)
    return 0


def _machphys_mfn_list(hv: Hypervisor, cpu: Vcpu, argument: int, *, compat: bool = False) -> int:
    """The first frame of each 2 MiB of the machine-to-physical table; of 32-bit guests' there is none beside it."""
    word = hv.abi.word
    room, start = access.fetch(hv, cpu, argument, _MFN_LIST)
    size = 0 if compat and word == 8 else len(hv.frames) * hv.abi.m2p_entry
    count = min(room, (size + _M2P_PIECE - 1) // _M2P_PIECE)
    mfns = (hv.m2p + index * _M2P_PIECE >> PAGE_SHIFT for index in range(count))
    access.write(hv, cpu, start, b"".join(mfn.to_bytes(word, "little") for mfn in mfns))
    access.store(hv, cpu, argument, _MFN_LIST_EXTENTS, count)
    return 0


# --- what a paravirtualised domain has not ---------------------------------------------------------------------------


def _not_translated(hv: Hypervisor, domid: int) -> int:
    """No domain here is: neither this one nor dom0."""
    return -EACCES if domid in {0, DOMID_SELF, hv.domain.domid} else -ESRCH


def _add_to_physmap(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """Only domains whose memory Xen translates have a map to add to."""
    domid, space = access.fetch(hv, cpu, argument, _ADD)
    # XENMAPSPACE_gmfn_foreign is refused before the domain is looked at.
    return -ENOSYS if space == _FOREIGN else _not_translated(hv, domid)


def _add_to_physmap_batch(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    domid, space = access.fetch(hv, cpu, argument, _ADD_BATCH)
    return -EOPNOTSUPP if space == _RANGE else _not_translated(hv, domid)


def _remove_from_physmap(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    return _not_translated(hv, *access.fetch(hv, cpu, argument, _REMOVE))


def _claim_pages(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """Only the toolstack reserves memory."""
    wanted = reservation.read(hv, cpu, argument)
    known = wanted.domid in {0, hv.domain.domid}
    return -EINVAL if wanted.start or wanted.order or wanted.flags or not known else -EPERM


def _vnumainfo(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    domid, padding = access.fetch(hv, cpu, argument, _VNUMA)
    return -EINVAL if padding else domain_error(hv, domid) or -EOPNOTSUPP


def _reserved_device_memory(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """There is none."""
    flags, count, buffer = access.fetch(hv, cpu, argument, _RDM_MAP)
    # Looked at before the flags, as the copy of the array would be.
    access.check(hv.abi, buffer, count * _RDM.size(hv.abi.bits))
    if flags & ~1:
        return -EINVAL
    access.store(hv, cpu, argument, _RDM_ENTRIES, 0)
    return 0


def _acquire_resource(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """Resources are those of other domains, and for those who run them."""
    domid, count, padding, frame = access.fetch(hv, cpu, argument, _RESOURCE)
    # ``acquire_resource``: nr_frames has 32 bits, and the offset must be within its range.
    if padding or frame >> 32 or frame + count >> 32:
        return -EINVAL
    return -EPERM if domid in {0, DOMID_SELF, hv.domain.domid} else -ESRCH


def _access_op(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    _op, _access, domid, _count = access.fetch(hv, cpu, argument, _ACCESS)
    if domid in {DOMID_SELF, hv.domain.domid}:
        return -EPERM
    return -ESRCH if domid else -EINVAL


def _pod_target(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    (domid,) = access.fetch(hv, cpu, argument, _POD)
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
    # Only as many as a size of 16 bits can say have been done (XENMEM_add_to_physmap's start_extent).
    if done >> 16 and kind != MemoryOp.ACQUIRE_RESOURCE:
        return -EDOM
    return operation(hv, cpu, argument)
