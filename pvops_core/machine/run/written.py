"""Which pages of a machine's memory have been written since it went back to a snapshot.

After ``PhysicalMemory.load`` every page is the snapshot file's own until it is written, when the host's kernel makes a
copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pvops_core.machine import hostpages
from pvops_core.machine.memory import PAGE

if TYPE_CHECKING:
    from pvops_core.machine.memory import MemorySnapshot, PhysicalMemory


def written_pages(memory: PhysicalMemory, snapshot: MemorySnapshot) -> list[int]:
    """Physical addresses of the pages that may differ from the snapshot that memory last went back to; ascending.

    Where the host does not tell, all pages are compared.
    """
    words = hostpages.entries(memory.address, memory.size)
    if not len(words):
        return [pa for pa in range(0, memory.size, PAGE) if memory.read(pa, PAGE) != snapshot.read(pa, PAGE)]
    pages: list[int] = (np.flatnonzero(hostpages.copied(words)) << hostpages.PAGE_SHIFT).tolist()
    return pages
