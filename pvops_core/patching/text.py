"""A kernel's text: the sections it is in, and a copy to work on that is read and written by virtual address."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pvops_core.images import KernelImage, Section


def executable_sections(image: KernelImage) -> list[Section]:
    """The sections whose bytes are instructions, in address order.

    Raises:
        ImageError: two of them overlap in memory or in the file, so that a site could be in either.
    """
    found = [section for section in image.sections if section.executable and section.in_file and section.size]
    for member, place in (("sh_offset", _offset), ("sh_addr", _address)):
        found.sort(key=place)
        for lower, upper in itertools.pairwise(found):
            if place(upper) < place(lower) + lower.size:
                message = f"{upper.name} at {place(upper):#x} overlaps {lower.name}"
                raise image.error(message, field=f"section[{upper.index}] {member}")
    return found


def _offset(section: Section) -> int:
    return section.offset


def _address(section: Section) -> int:
    return section.address


def holders(sections: list[Section], address: NDArray[np.uint64], length: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For each span the number of the section that holds all of it; -1 where none does.

    Args:
        sections: in address order, none over another.
        address: where each span begins.
        length: its bytes.
    """
    if not sections:
        return np.full(len(address), -1, np.int64)
    starts, sizes = np.array([(section.address, section.size) for section in sections], np.uint64).T
    where = np.searchsorted(starts, address, side="right") - 1  # -1, the last, if it is below all of them
    distance = address - starts[where]  # and then this wraps to a large number
    # Compared as what is left, so that an address near 2^64 cannot wrap.
    inside = (distance < sizes[where]) & (sizes[where] - np.minimum(distance, sizes[where]) >= length)
    return np.where(inside, where, -1)


def overlap(address: NDArray[np.uint64], length: NDArray[np.uint64]) -> tuple[int, int] | None:
    """Which two spans share a byte, the lower first; None if none do."""
    order = np.argsort(address, kind="stable")
    ends = address[order] + length[order]
    hits = np.flatnonzero(ends[:-1] > address[order][1:])
    return (int(order[hits[0]]), int(order[hits[0] + 1])) if len(hits) else None


class BuiltText:
    """An image's executable sections as they were built, read by virtual address. Nothing is copied."""

    def __init__(self, image: KernelImage) -> None:
        sections, data = executable_sections(image), memoryview(image.data)
        self._starts = [section.address for section in sections]
        self._pieces: list[bytearray | memoryview] = [data[each.offset : each.offset + each.size] for each in sections]

    def read(self, address: int, length: int) -> bytes:
        """``length`` bytes, which the caller knows to be inside one section."""
        index = bisect_right(self._starts, address) - 1
        start = address - self._starts[index]
        return bytes(self._pieces[index][start : start + length])


class Text(BuiltText):
    """A copy of them that can be written too."""

    def __init__(self, image: KernelImage) -> None:
        super().__init__(image)
        self._pieces = [bytearray(piece) for piece in self._pieces]

    def write(self, address: int, code: bytes) -> None:
        """Replace as many bytes as ``code`` has, likewise."""
        index = bisect_right(self._starts, address) - 1
        start = address - self._starts[index]
        self._pieces[index][start : start + len(code)] = code
