"""Rings of bytes that a guest shares with a service: two indices that run free, and wrap at 32 bits.

Source: xen/include/public/io/ring.h, io/console.h, io/xs_wire.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pvops_core.machine import PhysicalMemory

_WRAP = 1 << 32


class BadRingError(Exception):
    """The guest's indices make no sense: more is said to be in the ring than it holds."""


@attrs.frozen
class ByteRing:
    """One direction of a shared page.

    Attributes:
        size: bytes that it holds, a power of two.
        data: offset of the first of them in the page.
        consumer, producer: offsets of the indices.
    """

    size: int
    data: int
    consumer: int
    producer: int

    def _indices(self, memory: PhysicalMemory, page: int) -> tuple[int, int]:
        consumer, producer = memory.u32(page + self.consumer), memory.u32(page + self.producer)
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
        if not count:
            return b""
        data = memory.read(page + self.data, self.size)
        memory.set_u32(page + self.consumer, producer)
        return (data + data)[start : start + count]

    def put(self, memory: PhysicalMemory, page: int, data: bytes) -> int:
        """Put in as many bytes for the guest as there is room for; how many.

        Raises:
            BadRingError: its indices make no sense.
        """
        consumer, producer = self._indices(memory, page)
        data = data[: self.size - (producer - consumer) % _WRAP]
        start = producer % self.size
        first = data[: self.size - start]
        memory.write(page + self.data + start, first)
        memory.write(page + self.data, data[len(first) :])
        memory.set_u32(page + self.producer, (producer + len(data)) % _WRAP)
        return len(data)
