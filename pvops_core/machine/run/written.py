"""Which pages of a machine's memory have been written since it went back to a snapshot.

After ``PhysicalMemory.load`` every page is the snapshot file's own until it is written, when the host's kernel makes a
copy; /proc/self/pagemap tells copies from pages of a file (Documentation/admin-guide/mm/pagemap.rst of Linux).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pvops_core.machine.memory import PAGE

if TYPE_CHECKING:
    import numpy.typing as npt

    from pvops_core.machine.memory import MemorySnapshot, PhysicalMemory

_PRESENT: Final = np.uint64(1 << 63)
_SWAPPED: Final = np.uint64(1 << 62)
_OF_A_FILE: Final = np.uint64(1 << 61)
_PAGE_SHIFT: Final = PAGE.bit_length() - 1


def _entries(memory: PhysicalMemory) -> npt.NDArray[np.uint64]:
    """What the host tells of memory's pages; nothing where it does not."""
    count = memory.size >> _PAGE_SHIFT
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as file:  # noqa: PTH123 - unbuffered, and read in part
            file.seek((memory.address >> _PAGE_SHIFT) * 8)
            entries = np.frombuffer(file.read(count * 8), "<u8")
    except OSError:
        return np.empty(0, "<u8")
    return entries if len(entries) == count else np.empty(0, "<u8")


def written_pages(memory: PhysicalMemory, snapshot: MemorySnapshot) -> list[int]:
    """Physical addresses of the pages that may differ from the snapshot that memory last went back to; ascending.

    Where the host does not tell, all pages are compared.
    """
    entries = _entries(memory)
    if not len(entries):
        return [pa for pa in range(0, memory.size, PAGE) if memory.read(pa, PAGE) != snapshot.read(pa, PAGE)]
    copied = (entries & _PRESENT != 0) & (entries & _OF_A_FILE == 0) | (entries & _SWAPPED != 0)
    pages: list[int] = (np.flatnonzero(copied) << _PAGE_SHIFT).tolist()
    return pages
