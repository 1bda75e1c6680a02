"""``memory_op``: how much memory the domain has, giving frames back and getting some again (xen/common/memory.c)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import DOMID_SELF, EFAULT, EINVAL, ENOSYS, EPERM, ESRCH, PAGE_SHIFT, MemoryOp
from pvops_xen.hypervisor.frames import ALLOCATED, FREE, GUEST, PINNED

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_E820: Final = struct.Struct("<QQI")


def _domain_error(hv: Hypervisor, domid: int) -> int:
    if domid in {DOMID_SELF, hv.domain.domid}:
        return 0
    return -EPERM if domid == 0 else -ESRCH


def _held(hv: Hypervisor) -> int:
    return sum(
        1 for owner, flags in zip(hv.frames.owner, hv.frames.flags, strict=True) if owner == GUEST and flags & ALLOCATED
    )


def _maximum_ram_page(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    del cpu, argument
    return len(hv.frames) - 1


def _current_reservation(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    domid = int.from_bytes(access.read(hv, cpu, argument, 2), "little")
    return _domain_error(hv, domid) or _held(hv)


def _maximum_reservation(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    domid = int.from_bytes(access.read(hv, cpu, argument, 2), "little")
    return _domain_error(hv, domid) or hv.domain.nr_pages


def _reservation(hv: Hypervisor, cpu: Vcpu, argument: int) -> tuple[int, int, int, int]:
    """xen_memory_reservation: extent_start, nr_extents, extent_order, domid."""
    word = hv.abi.word
    raw = access.read(hv, cpu, argument, 2 * word + 12 if word == 4 else 32)
    start, count = (int.from_bytes(raw[i * word : (i + 1) * word], "little") for i in range(2))
    order, _flags, domid = struct.unpack_from("<IIH", raw, 2 * word)
    return start, count, order, domid


def _decrease(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """Give frames back; the answer is how many were taken, the rest of the list is left alone."""
    start, count, order, domid = _reservation(hv, cpu, argument)
    error = _domain_error(hv, domid)
    if error:
        return error
    if order > 9:
        return 0
    for done in range(count):
        mfn = _extent(hv, cpu, start, done)
        if mfn is None or not all(_give_up(hv, mfn + i) for i in range(1 << order)):
            return done
    return count


def _extent(hv: Hypervisor, cpu: Vcpu, start: int, index: int) -> int | None:
    if start + (index + 1) * hv.abi.word > hv.abi.mask:
        return None
    return access.read_word(hv, cpu, start + index * hv.abi.word)


def _give_up(hv: Hypervisor, mfn: int) -> bool:
    """``guest_remove_page``: unpin the frame and drop the domain's own reference; the last reference frees it."""
    frames = hv.frames
    if not frames.is_guests(mfn) or not frames.flags[mfn] & ALLOCATED or mfn == hv.domain.shared_info >> PAGE_SHIFT:
        return False
    if frames.flags[mfn] & PINNED:
        frames.flags[mfn] &= ~PINNED
        hv.validator.put_page_and_type(mfn)
    frames.flags[mfn] &= ~ALLOCATED
    frames.put_page(mfn)
    hv.set_pfn_of(mfn, (1 << 64) - 1)
    return True


def _populate(hv: Hypervisor, cpu: Vcpu, argument: int, *, physmap: bool) -> int:
    """Get frames, never beyond the maximum; the list's entries become the machine frames.

    With ``physmap`` the entries name places in pseudo-physical memory that the frames take; without, they take none.
    """
    start, count, order, domid = _reservation(hv, cpu, argument)
    error = _domain_error(hv, domid)
    if error:
        return error
    if order:
        return 0
    return _hand_out(hv, cpu, start, count, physmap=physmap)


def _hand_out(hv: Hypervisor, cpu: Vcpu, start: int, count: int, *, physmap: bool) -> int:
    allowed = min(count, hv.domain.nr_pages - _held(hv))
    free = [mfn for mfn in range(len(hv.frames)) if hv.frames.owner[mfn] == FREE][: max(allowed, 0)]
    for done, mfn in enumerate(free):
        pfn = _extent(hv, cpu, start, done) if physmap else (1 << 64) - 1
        if pfn is None:
            return -EFAULT
        if start:
            access.write_word(hv, cpu, start + done * hv.abi.word, mfn)
        hv.frames.give(mfn, GUEST)
        hv.memory.write(mfn << PAGE_SHIFT, bytes(1 << PAGE_SHIFT))
        hv.set_pfn_of(mfn, pfn)
    return len(free)


def _memory_map(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """The e820 map of the domain, if the builder gave it one."""
    regions = hv.domain.e820
    if not regions:
        return -ENOSYS
    word = hv.abi.word
    raw = access.read(hv, cpu, argument, 2 * word)
    room, buffer = int.from_bytes(raw[:4], "little"), int.from_bytes(raw[word:], "little")
    count = min(room, len(regions))
    if count <= 0:
        return -EINVAL
    access.write(hv, cpu, buffer, b"".join(_E820.pack(*region) for region in regions[:count]))
    access.write_u32(hv, cpu, argument, count)
    return 0


def _machphys_mapping(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    abi = hv.abi
    word = abi.word
    answer = b"".join(value.to_bytes(word, "little") for value in (abi.m2p_start, abi.m2p_end, len(hv.frames) - 1))
    access.write(hv, cpu, argument, answer)
    return 0


_OPERATIONS: Final[dict[int, Callable[[Hypervisor, Vcpu, int], int]]] = {
    MemoryOp.INCREASE_RESERVATION: partial(_populate, physmap=False),
    MemoryOp.DECREASE_RESERVATION: _decrease,
    MemoryOp.MAXIMUM_RAM_PAGE: _maximum_ram_page,
    MemoryOp.CURRENT_RESERVATION: _current_reservation,
    MemoryOp.MAXIMUM_RESERVATION: _maximum_reservation,
    MemoryOp.POPULATE_PHYSMAP: partial(_populate, physmap=True),
    MemoryOp.MEMORY_MAP: _memory_map,
    MemoryOp.MACHPHYS_MAPPING: _machphys_mapping,
}


def memory_op(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """``memory_op(cmd, arg)``."""
    operation = _OPERATIONS.get(command & 0xFFFF_FFFF)
    return operation(hv, cpu, argument) if operation else -ENOSYS
