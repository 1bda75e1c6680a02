"""FIFO interface: a word a port in frames of the guest's, linked into 16 queues a vCPU, by priority.

Source: xen/common/event_fifo.c, xen/include/public/event_channel.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor.abi import EINVAL, ENOENT, ENOSPC, EOPNOTSUPP, PAGE_SHIFT, PAGE_SIZE
from pvops_xen.hypervisor.events import twolevel
from pvops_xen.hypervisor.events.queues import WORDS, Fifo, Queue
from pvops_xen.hypervisor.events.upcalls import make_upcall_pending, wake_pollers
from pvops_xen.hypervisor.memory.frames import FrameType
from pvops_xen.public import EVENT_CHANNEL

if TYPE_CHECKING:
    from pvops_xen.hypervisor.core import Hypervisor

# From here on EVTCHN_FIFO_* (public/event_channel.h): an event word, and priorities, of which 0 is the highest.
PENDING: Final = 1 << 31
MASKED: Final = 1 << 30
LINKED: Final = 1 << 29
BUSY: Final = 1 << 28
LINK_BITS: Final = 17
LINK_MASK: Final = (1 << LINK_BITS) - 1
CHANNELS: Final = 1 << LINK_BITS
DEFAULT_PRIORITY: Final = 7
LOWEST_PRIORITY: Final = 15
_BLOCK: Final = EVENT_CHANNEL["evtchn_fifo_control_block"]


def _flags(hv: Hypervisor, fifo: Fifo, port: int) -> int:
    address = fifo.word(port)
    return 0 if address is None else hv.memory.u32(address)


def is_pending(hv: Hypervisor, fifo: Fifo, port: int) -> bool:
    """``evtchn_fifo_is_pending``: the port's pending bit."""
    return bool(_flags(hv, fifo, port) & PENDING)


def is_busy(hv: Hypervisor, fifo: Fifo, port: int) -> bool:
    """``evtchn_fifo_is_busy``: it is in a queue still: nobody must have it anew."""
    # LINKED means that the guest has not taken it out of its queue yet.
    return bool(_flags(hv, fifo, port) & LINKED)


def set_pending(hv: Hypervisor, fifo: Fifo, port: int) -> None:
    """``evtchn_fifo_set_pending``: an event on a port, which goes to the end of its queue unless masked or in it."""
    address = fifo.word(port)
    if address is None:
        fifo.early.add(port)
        return
    old = hv.memory.u32(address)
    hv.memory.set_u32(address, old | PENDING)
    index = hv.domain.channels[port].vcpu
    control = fifo.control.get(index)
    if control is None:
        hv.log(f"vCPU {index} has no FIFO event channel control block")
    # In a queue it is linked only once; masked it waits for unmask, which comes here again.
    elif not old & (MASKED | LINKED):
        hv.memory.set_u32(address, old | PENDING | LINKED)
        queue = index, fifo.priorities.get(port, DEFAULT_PRIORITY)
        # The queue's first is what its vCPU is told of.
        if not _link(hv, fifo, queue, port):
            hv.memory.set_u32(control + _BLOCK.offset(f"head[{queue[1]}]", hv.abi.bits), port)
            _make_ready(hv, control, queue)
        fifo.tails[queue] = port
    if not old & PENDING:
        wake_pollers(hv, port)


def _link(hv: Hypervisor, fifo: Fifo, queue: Queue, port: int) -> bool:
    """Link the end of a queue to a port; False if the queue is empty."""
    before = fifo.last.get(port, (0, 0))
    # It was the last of another queue: that one is empty now, and its next is no neighbour of this.
    if fifo.tails.get(before) == port:  # it was the end of another queue, which is empty now
        fifo.tails[before] = 0
    fifo.last[port] = queue
    tail = fifo.tails.get(queue, 0)
    address = fifo.word(tail) if tail else None
    if address is None:
        return False
    # A word that is not linked any more is the guest's, and may not be written to.
    word = hv.memory.u32(address)
    if not word & LINKED:
        return False
    # BUSY is the guest's word that it is about to change the link itself; Xen's own link ends that (try_set_link).
    hv.memory.set_u32(address, word & ~(BUSY | LINK_MASK) | port)
    return True


def _make_ready(hv: Hypervisor, control: int, queue: Queue) -> None:
    """The queue's head is there for its vCPU; one that knew already is not told again."""
    ready, bit = hv.memory.u32(control), 1 << queue[1]
    if not ready & bit:
        # Told only where the bit was clear: the guest clears it when it looks.
        hv.memory.set_u32(control, ready | bit)
        make_upcall_pending(hv, queue[0])


def clear_pending(hv: Hypervisor, fifo: Fifo, port: int) -> None:
    """``evtchn_fifo_clear_pending``: the port is free again; the guest takes it out of its queue itself."""
    address = fifo.word(port)
    if address is not None:
        # Only the pending bit: what links the guest has in its words is its own.
        hv.memory.set_u32(address, hv.memory.u32(address) & ~PENDING)
    fifo.early.discard(port)
    fifo.priorities.pop(port, None)


def unmask(hv: Hypervisor, fifo: Fifo, port: int) -> None:
    """``evtchn_fifo_unmask``: clear the port's mask; what is pending is linked now."""
    address = fifo.word(port)
    if address is None:
        return
    word = hv.memory.u32(address) & ~MASKED
    hv.memory.set_u32(address, word)
    if word & PENDING:
        set_pending(hv, fifo, port)


# --- setting it up ---------------------------------------------------------------------------------------------------


def _take_frame(hv: Hypervisor, mfn: int) -> bool:
    """``map_guest_page``: a frame of the guest's that Xen writes to from now on."""
    return not hv.validator.get_page_and_type(mfn, FrameType.WRITABLE)


def init_control(hv: Hypervisor, mfn: int, offset: int, index: int) -> int:
    """EVTCHNOP_init_control: a vCPU's control block. The first switches the domain to this interface."""
    if index >= len(hv.domain.vcpus):
        # The vCPU must be there; no error of the guest's tells it apart from one that is not.
        return -ENOENT
    # It may not reach over a page's end, and words are aligned to 8
    if offset > PAGE_SIZE - _BLOCK.size(hv.abi.bits) or offset & 7:
        return -EINVAL
    fifo = hv.domain.fifo or Fifo()
    if index in fifo.control or not _take_frame(hv, mfn):
        return -EINVAL
    fifo.control[index] = mfn << PAGE_SHIFT | offset
    if hv.domain.fifo is None:
        channels = min(len(hv.domain.channels), hv.abi.channels)
        # Events that came by the other interface, or for which there is no word yet, are not lost: they wait for their
        # words.
        fifo.early = {port for port in range(1, channels) if twolevel.is_pending(hv, port)}
        hv.domain.fifo = fifo
    return 0


def expand_array(hv: Hypervisor, mfn: int) -> int:
    """EVTCHNOP_expand_array: words for 1,024 more ports."""
    fifo = hv.domain.fifo
    if fifo is None:
        return -EOPNOTSUPP
    if len(fifo.array) >= CHANNELS // WORDS:
        return -ENOSPC
    if not _take_frame(hv, mfn):
        return -EINVAL
    first = len(fifo.array) * WORDS
    fifo.array.append(mfn)
    # In the order of ports, so that a run makes the same queues.
    for port in sorted(fifo.early & set(range(first, first + WORDS))):
        fifo.early.discard(port)
        set_pending(hv, fifo, port)
    return 0


def destroy(hv: Hypervisor) -> None:
    """evtchn_fifo_destroy(): back to the two-level interface."""
    fifo, hv.domain.fifo = hv.domain.fifo, None
    if fifo is not None:
        for mfn in (*(address >> PAGE_SHIFT for address in fifo.control.values()), *fifo.array):
            hv.validator.put_page_and_type(mfn)
