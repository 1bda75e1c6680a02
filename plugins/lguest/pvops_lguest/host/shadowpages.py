"""The pages that shadow tables are made of: where an address's entry is, and how tables are taken apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pvops_lguest.host.memory import PAGE_SHIFT, PAGE_SIZE
from pvops_lguest.host.paging import PRESENT

if TYPE_CHECKING:
    from pvops_core.machine import PhysicalMemory
    from pvops_lguest.host.frames import FramePool
    from pvops_lguest.host.paging import TableForm


class ShadowPages:
    """Tables of one form in the host's frames. Addresses are physical; a depth counts levels from the top, 0.

    The last entry of each level leads towards the host's own part and stays whatever happens.
    """

    def __init__(self, memory: PhysicalMemory, frames: FramePool, paging: TableForm) -> None:
        self._memory = memory
        self._frames = frames
        self._paging = paging
        wide = paging.size == 8
        self.entry = memory.u64 if wide else memory.u32
        self.set_entry = memory.set_u64 if wide else memory.set_u32

    def blank(self, take: Callable[[], int], switcher: int) -> int:
        """A directory that has nothing but the host's own part.

        Args:
            take: gives a frame.
            switcher: the entry that leads to the table of that part.
        """
        size, uppers = self._paging.size, self._paging.uppers
        root = table = take()
        for level in uppers[:-1]:
            # PAE's top level has an entry of its own for the switcher, so it needs a middle table from the start.
            below = take()
            self.set_entry(table + (level.count - 1) * size, below | PRESENT)
            table = below
        # The last entry of the last upper level, in every directory: the CPU must find the GDT whatever the guest
        # maps.
        self.set_entry(table + (uppers[-1].count - 1) * size, switcher)
        return root

    def slot(self, table: int, va: int, depth: int) -> int:
        """Where the entry for an address is in a table of an upper level."""
        level = self._paging.uppers[depth]
        return table + (va >> level.shift) % level.count * self._paging.size

    def last(self, table: int, va: int) -> int:
        """Where it is in a table of the last level."""
        return table + (va >> PAGE_SHIFT) % self._paging.entries * self._paging.size

    def find(self, root: int, va: int) -> int | None:
        """find_spte(): where the last entry for an address is; None where there is no table for it."""
        table = root
        for depth in range(len(self._paging.uppers)):
            entry = self.entry(self.slot(table, va, depth))
            if not entry & PRESENT:
                return None
            table = entry & self._paging.frame
        return self.last(table, va)

    def release(self, slot: int, depth: int = 0) -> None:
        """release_pgd(): take apart what an entry of an upper level leads to."""
        entry = self.entry(slot)
        if not entry & PRESENT:
            return
        table = entry & self._paging.frame
        if depth + 1 < len(self._paging.uppers):
            # From the bottom up: the frame of a table may be handed out again as soon as it is given back.
            self._release_first(table, self._paging.uppers[depth + 1].count, depth + 1)
        self._frames.give(table)
        # Zero, so that nothing is released twice.
        self.set_entry(slot, 0)

    def release_below(self, root: int, end: int) -> None:
        """Take apart what a directory has below an address, rounded down to what one of its entries maps."""
        self._release_first(root, end >> self._paging.uppers[0].shift, 0)

    def clear(self, root: int) -> None:
        """Take apart all but the host's own part."""
        table, uppers = root, self._paging.uppers
        for depth, level in enumerate(uppers):
            self._release_first(table, level.count - 1, depth)
            # The last entry at each level leads on to the switcher's table, so it stays and is followed.
            table = self.entry(table + (level.count - 1) * self._paging.size) & self._paging.frame

    def _release_first(self, table: int, count: int, depth: int) -> None:
        size = self._paging.size
        # One read of the whole table: most of its entries are empty.
        entries = memoryview(self._memory.read(table, min(count * size, PAGE_SIZE))).cast("Q" if size > 4 else "I")
        for number, entry in enumerate(entries):
            if entry & PRESENT:
                self.release(table + number * size, depth)
