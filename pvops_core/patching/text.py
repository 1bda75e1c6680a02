"""A kernel's text as something to work on: a copy that is read and written by virtual address."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from pvops_core.patching.sites import executable_sections

if TYPE_CHECKING:
    from pvops_core.images import KernelImage


class Text:
    """A copy of an image's executable sections that can be read and written by virtual address."""

    def __init__(self, image: KernelImage) -> None:
        sections = executable_sections(image)
        self._starts = [section.address for section in sections]
        self._pieces = [
            bytearray(memoryview(image.data)[section.offset : section.offset + section.size]) for section in sections
        ]

    def read(self, address: int, length: int) -> bytes:
        """``length`` bytes, which the caller knows to be inside one section."""
        index = bisect_right(self._starts, address) - 1
        start = address - self._starts[index]
        return bytes(self._pieces[index][start : start + length])

    def write(self, address: int, code: bytes) -> None:
        """Replace as many bytes as ``code`` has, likewise."""
        index = bisect_right(self._starts, address) - 1
        start = address - self._starts[index]
        self._pieces[index][start : start + len(code)] = code
