"""A booted kernel's own image as it is in the machine's memory now, by the kernel's virtual addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvops_core.hookspecs import KernelPlatform
    from pvops_core.images import KernelImage
    from pvops_core.machine import Machine

PAGE: Final = 0x1000


class ImageMemory:
    """Where a kernel's image lies in memory: its segments, by the physical addresses that they are linked for.

    What a kernel has given back (init text) may have become something else since.
    """

    def __init__(self, machine: Machine, platform: KernelPlatform, image: KernelImage) -> None:
        self._machine = machine
        self._platform = platform
        self._image = image
        self._segments = tuple(segment for segment in image.segments if segment.memory_size)

    def machine_address(self, va: int) -> int:
        """Machine-physical address of a byte of the image.

        Raises:
            ImageError: no segment holds it.
        """
        for segment in self._segments:
            # The pages of a segment are its own to the last byte.
            if 0 <= va - segment.address < (segment.memory_size + PAGE - 1 & -PAGE):
                return self._platform.machine_address(segment.physical + va - segment.address)
        raise self._image.error(f"{va:#x} is in no segment", field="program headers")

    def read(self, va: int, length: int) -> bytes:
        """Bytes of the image, as they are now.

        Raises:
            ImageError: they are not all in it.
        """
        return b"".join(self._machine.memory.read(start, size) for start, size in self.spans(va, length))

    def spans(self, va: int, length: int) -> Iterator[tuple[int, int]]:
        """Machine-physical address and length of a range's pieces, page by page; ImageError as for :meth:`read`."""
        return ((self.machine_address(start), end - start) for start, end in _pages(va, length))

    def pointers(self, va: int, count: int, size: int) -> tuple[int, ...]:
        """Little-endian words of ``size`` bytes; ImageError as for :meth:`read`."""
        data = self.read(va, count * size)
        return tuple(int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size))


def _pages(va: int, length: int) -> Iterator[tuple[int, int]]:
    """Cut [va, va + length) at page borders."""
    end = va + length
    while va < end:
        stop = min(end, (va | PAGE - 1) + 1)
        yield va, stop
        va = stop
