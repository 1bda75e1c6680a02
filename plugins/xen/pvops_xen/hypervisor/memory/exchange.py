"""XENMEM_exchange: give frames away for others that lie in a row (``memory_exchange`` of xen/common/memory.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import DOMID_SELF, EFAULT, EINVAL, ENOMEM, EPERM, ERESTART, ESRCH, MemoryOp
from pvops_xen.hypervisor.memory import reservation
from pvops_xen.hypervisor.memory.frames import ALLOCATED
from pvops_xen.public import MEMORY

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor
    from pvops_xen.hypervisor.memory.reservation import Reservation

_EXCHANGE: Final = MEMORY["xen_memory_exchange"]
_DONE: Final = _EXCHANGE.part("nr_exchanged")


def exchange(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """``memory_op(XENMEM_exchange)``: 0 if all was exchanged; how much was is told in any case."""
    bits = hv.abi.bits
    given, taken = (reservation.read(hv, cpu, argument + _EXCHANGE.offset(each, bits)) for each in ("in", "out"))
    (done,) = access.fetch(hv, cpu, argument, _DONE)
    error = _refused(hv, given, taken, done)
    if error:
        return error
    chunk = max(given.order, taken.order)
    # Frames are exchanged by whole chunks of the larger extent, so that both sides have whole extents.
    inputs, outputs = 1 << chunk - given.order, 1 << chunk - taken.order
    pause = done + max(reservation.STRETCH >> given.order, inputs)
    while done < given.count:
        error = _one_chunk(hv, cpu, (given, done, inputs), (taken, done // inputs * outputs, outputs))
        if error:
            break
        done += inputs
        if done >= pause and done < given.count:
            hv.continuation = MemoryOp.EXCHANGE, argument
            error = -ERESTART
            break
    access.store(hv, cpu, argument, _DONE, done)
    return error


def _refused(hv: Hypervisor, given: Reservation, taken: Reservation, done: int) -> int:
    # ``max_order`` of a domain without devices.
    if max(given.order, taken.order) > reservation.MAX_ORDER:
        return -EPERM
    frames = given.count << given.order
    if done > given.count or frames != taken.count << taken.order or frames > hv.abi.mask:
        return -EINVAL
    for each in (given, taken):
        if not access.addr_ok(hv.abi, each.start, each.count * hv.abi.word):
            return -EFAULT
    # ``nr_exchanged`` comes from the guest, which may have put anything there for the rest of a call.
    if done % (1 << max(taken.order - given.order, 0)):
        return -EINVAL
    if given.domid not in {DOMID_SELF, hv.domain.domid}:
        return -ESRCH if given.domid else -EPERM
    return 0


def _one_chunk(
    hv: Hypervisor, cpu: Vcpu, source: tuple[Reservation, int, int], target: tuple[Reservation, int, int]
) -> int:
    """Exchange as many frames as the larger extent has; nothing is changed if that cannot be."""
    given, first, count = source
    taken, first_out, count_out = target
    mfns = [
        mfn + offset
        for index in range(first, first + count)
        for mfn in [access.read_word(hv, cpu, given.start + index * hv.abi.word)]
        for offset in range(1 << given.order)
    ]
    places = [taken.start + index * hv.abi.word for index in range(first_out, first_out + count_out)]
    pfns = [access.read_word(hv, cpu, place) for place in places]
    # Twice the same frame would be given away twice.
    if len(set(mfns)) != len(mfns) or not all(_stealable(hv, mfn) for mfn in mfns):
        return -EINVAL
    found: list[int] = []
    for pfn in pfns:
        new = reservation.find_free(hv, taken.order)
        if new is None:
            for earlier in found:
                for offset in range(1 << taken.order):
                    reservation.give_up(hv, earlier + offset)
            return -ENOMEM
        reservation.give(hv, new, taken.order, pfn)
        found.append(new)
    # Only now: until here everything could be put back.
    for mfn in mfns:
        reservation.give_up(hv, mfn)
    for place, new in zip(places, found, strict=True):
        access.write_word(hv, cpu, place, new)
    return 0


def _stealable(hv: Hypervisor, mfn: int) -> bool:
    """``steal_page``: the domain's own, and nobody refers to it but the domain itself."""
    frames = hv.frames
    return frames.is_guests(mfn) and bool(frames.flags[mfn] & ALLOCATED) and frames.refs[mfn] == 1
