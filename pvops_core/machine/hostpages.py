"""What the host's kernel tells of pages of this process, by /proc/self/pagemap.

Its bits: Documentation/admin-guide/mm/pagemap.rst of Linux.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    import numpy.typing as npt

PAGE_SHIFT: Final = PAGE.bit_length() - 1
_PRESENT: Final = np.uint64(1 << 63)
_SWAPPED: Final = np.uint64(1 << 62)
_OF_A_FILE: Final = np.uint64(1 << 61)


def entries(address: int, size: int) -> npt.NDArray[np.uint64]:
    """A word for each page from an address on; none at all where the host does not tell."""
    count = size >> PAGE_SHIFT
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as file:  # noqa: PTH123 - unbuffered, and read in part
            # A word of 64 bits for each virtual page.
            file.seek((address >> PAGE_SHIFT) * 8)
            found = np.frombuffer(file.read(count * 8), "<u8")
    except OSError:
        return np.empty(0, "<u8")
    # A short read means that the host hides part of it: nothing is better than half.
    return found if len(found) == count else np.empty(0, "<u8")


def held(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """The pages that have been touched: those of memory that nobody has are zeros, those of a file what it holds."""
    # Pages that were swapped out have been touched as well.
    pages: npt.NDArray[np.bool_] = words & (_PRESENT | _SWAPPED) != 0
    return pages


def copied(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Of a private copy of a file, the pages that have been written."""
    # A copy is anonymous memory: present, and not the file's any more, or swapped out as such.
    pages: npt.NDArray[np.bool_] = (words & _PRESENT != 0) & (words & _OF_A_FILE == 0) | (words & _SWAPPED != 0)
    return pages
