"""A virtio ring in the guest's memory, from the device's side.

Source: include/linux/virtio_ring.h (2.6.24; unchanged later for what is used here) for the format, and
get_vq_desc() of Documentation/lguest/lguest.c for what a guest dies of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_lguest.host.kill import GuestKilledError
from pvops_lguest.host.memory import PAGE_SIZE
from pvops_lguest.public import BITS, VIRTIO

if TYPE_CHECKING:
    from pvops_lguest.host.memory import GuestMemory

_DESCRIPTOR: Final = VIRTIO["vring_desc"].whole("addr", "len", "flags", "next")
_AVAIL: Final = VIRTIO["vring_avail"]
_USED: Final = VIRTIO["vring_used"]
_ELEMENT: Final = VIRTIO["vring_used_elem"].whole("id", "len")
# VRING_DESC_F_NEXT and VRING_DESC_F_WRITE.
_NEXT, _WRITE = 1, 2
_NO_INTERRUPT: Final = 1
"""VRING_AVAIL_F_NO_INTERRUPT."""
# Indices are 16 bits wide and run freely; only their difference means anything.
_INDEX: Final = 0xFFFF

LONGEST: Final = 16 << 20
"""Most bytes of a chain that are taken: twice what a driver puts up at most, 126 segments of 64 KiB."""

Span = tuple[int, int]
"""Guest-physical address and length of a buffer."""


@attrs.frozen
class Chain:
    """What the guest put up for the device at a time.

    Attributes:
        head: number of its first descriptor, by which it is given back.
        readable: what the device is to read.
        writable: what it may fill.
    """

    head: int
    readable: tuple[Span, ...]
    writable: tuple[Span, ...]

    @property
    def room(self) -> int:
        """Bytes that the device may write."""
        return sum(length for _, length in self.writable)


def ring_pages(num: int) -> int:
    """Pages that a ring of ``num`` descriptors takes, its used half on a page of its own (vring_size())."""
    first = _DESCRIPTOR.at(BITS).form.size * num + _AVAIL.offset(f"ring[{num}]", BITS)
    return -(-first // PAGE_SIZE) + -(-_USED.offset(f"ring[{num}]", BITS) // PAGE_SIZE)


class Ring:
    """One ring of ``num`` descriptors in the pages from frame number ``pfn`` on, which raises interrupt ``irq``.

    Attributes:
        taken: how many chains the device has taken, modulo 65536.
    """

    def __init__(self, guest: GuestMemory, pfn: int, num: int, irq: int) -> None:
        self._guest = guest
        self.pfn = pfn
        self.num = num
        self.irq = irq
        self.taken = 0
        self._descriptors = pfn * PAGE_SIZE
        self._descriptor = _DESCRIPTOR.at(BITS).form
        self._element = _ELEMENT.at(BITS).form
        self._avail = self._descriptors + self._descriptor.size * num
        self._avail_index, self._avail_ring = (self._avail + _AVAIL.offset(name, BITS) for name in ("idx", "ring"))
        self._used = (self._avail + _AVAIL.offset(f"ring[{num}]", BITS) + PAGE_SIZE - 1) & -PAGE_SIZE
        self._used_index, self._used_ring = (self._used + _USED.offset(name, BITS) for name in ("idx", "ring"))

    def _u16(self, pa: int) -> int:
        return int.from_bytes(self._guest.read(pa, 2), "little")

    def take(self) -> Chain | None:
        """get_vq_desc(): the next chain that the guest has put up; None if there is none.

        Raises:
            GuestKilledError: the ring makes no sense, or a buffer is not in the guest's memory.
        """
        index = self._u16(self._avail_index)
        # More than the ring holds cannot be: the guest's index is rubbish (get_vq_desc()).
        if (index - self.taken) & _INDEX > self.num:
            raise GuestKilledError(f"Guest moved used index from {self.taken} to {index}")
        if index == self.taken:
            return None
        # The index counts all chains ever put up; the slot is its rest.
        head = self._u16(self._avail_ring + 2 * (self.taken % self.num))
        if head >= self.num:
            raise GuestKilledError(f"Guest says index {head} is available")
        self.taken = (self.taken + 1) & _INDEX
        return self._chain(head)

    def _chain(self, head: int) -> Chain:
        readable: list[Span] = []
        writable: list[Span] = []
        number, total = head, 0
        while True:
            size = self._descriptor.size
            raw = self._guest.read(self._descriptors + size * number, size)
            address, length, flags, following = self._descriptor.unpack(raw)
            if address + length > self._guest.limit:
                raise GuestKilledError(f"Invalid address {address:#x}")
            # Devices read a chain's first part and write its rest, by the format's definition.
            if not flags & _WRITE and writable:
                raise GuestKilledError("Descriptor has out after in")
            (writable if flags & _WRITE else readable).append((address, length))
            # Each descriptor once at most, so more links than there are descriptors go round.
            if len(readable) + len(writable) > self.num:
                raise GuestKilledError("Looped descriptor")
            total += length
            if total > LONGEST:
                raise GuestKilledError(f"Buffers of {total:#x} bytes in one request")
            if not flags & _NEXT:
                return Chain(head, tuple(readable), tuple(writable))
            if following >= self.num:
                raise GuestKilledError(f"Desc next is {following}")
            number = following

    def give(self, chain: Chain, written: int) -> None:
        """add_used(): give a chain back, of which ``written`` bytes have been filled."""
        index = self._u16(self._used_index)
        entry = self._element.pack(chain.head, written)
        # The element before the index: the driver looks at elements up to the index.
        self._guest.write(self._used_ring + len(entry) * (index % self.num), entry)
        self._guest.write(self._used_index, ((index + 1) & _INDEX).to_bytes(2, "little"))

    def read(self, chain: Chain) -> bytes:
        """All that a chain gives the device to read."""
        return b"".join(self._guest.read(address, length) for address, length in chain.readable)

    def fill(self, chain: Chain, data: bytes) -> int:
        """Put data into a chain's buffers, as much as there is room for; the bytes written."""
        done = 0
        for address, length in chain.writable:
            piece = data[done : done + length]
            self._guest.write(address, piece)
            done += len(piece)
        return done

    @property
    def wants_interrupt(self) -> bool:
        """Whether the guest wants to hear of chains given back."""
        return not self._u16(self._avail) & _NO_INTERRUPT

    def reset(self) -> None:
        """Forget all: the ring's pages are zero again."""
        self.taken = 0
        self._guest.write(self._descriptors, bytes(ring_pages(self.num) * PAGE_SIZE))
