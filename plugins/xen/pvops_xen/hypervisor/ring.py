"""Rings of bytes that a guest shares with a service: two indices that run free, and wrap at 32 bits.

Source: xen/include/public/io/ring.h, io/console.h, io/xs_wire.h.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pvops_core.headers import CStruct
    from pvops_core.machine import PhysicalMemory

_WRAP = 1 << 32  # RING_IDX counts on and on in 32 bits (public/io/ring.h)
BITS: Final = 64
"""Of the pages, which are the same in both widths."""


class BadRingError(Exception):
    """The guest's indices make no sense: more is said to be in the ring than it holds."""


class ByteRing:
    """One direction of a shared page, which is the same in both widths.

    Args:
        structure: what the page begins with.
        name: its array of bytes; the indices are called after it.
    """

    def __init__(self, structure: CStruct, name: str) -> None:
        self._structure = structure
        self._name = name

    @cached_property
    def size(self) -> int:
        """Bytes that it holds, a power of two."""
        return len(self._structure.place(self._name, BITS).type)

    @cached_property
    def data(self) -> int:
        """Offset of the first of them in the page."""
        return self._structure.offset(self._name, BITS)

    @cached_property
    def consumer(self) -> int:
        """Offset of the index up to which its bytes have been taken."""
        return self._structure.offset(f"{self._name}_cons", BITS)

    @cached_property
    def producer(self) -> int:
        """Offset of the index up to which there are bytes."""
        return self._structure.offset(f"{self._name}_prod", BITS)

    def _indices(self, memory: PhysicalMemory, page: int) -> tuple[int, int]:
        consumer, producer = memory.u32(page + self.consumer), memory.u32(page + self.producer)
        # Indices run free in 32 bits: their difference is what lies in the ring, and more is nonsense.
        if (producer - consumer) % _WRAP > self.size:
            raise BadRingError(f"{consumer:#x} to {producer:#x} is more than the {self.size} bytes of a ring")
        return consumer, producer

    def take(self, memory: PhysicalMemory, page: int) -> bytes:
        """All that the guest has put into the ring.

        Raises:
            BadRingError: its indices make no sense.
        """
        consumer, producer = self._indices(memory, page)
        count, start = (producer - consumer) % _WRAP, consumer % self.size
        # Nothing is moved, so nothing is told: a service that tells anyway never sleeps.
        if not count:
            return b""
        data = memory.read(page + self.data, self.size)
        memory.set_u32(page + self.consumer, producer)
        # Wrapped around in one copy: the ring is twice behind itself.
        return (data + data)[start : start + count]

    def put(self, memory: PhysicalMemory, page: int, data: bytes) -> int:
        """Put in as many bytes for the guest as there is room for; how many.

        Raises:
            BadRingError: its indices make no sense.
        """
        consumer, producer = self._indices(memory, page)
        # No more than there is room for: what did not fit comes the next time.
        data = data[: self.size - (producer - consumer) % _WRAP]
        start = producer % self.size
        first = data[: self.size - start]
        memory.write(page + self.data + start, first)
        memory.write(page + self.data, data[len(first) :])
        memory.set_u32(page + self.producer, (producer + len(data)) % _WRAP)
        return len(data)
