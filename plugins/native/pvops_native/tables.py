"""The page tables that firmware leaves: all memory at 0 and again at the kernel's base, in 4 KiB pages.

Source: Intel SDM volume 3, 4.3 (32-bit), 4.4 (PAE) and 4.5 (4-level) for the formats.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import attrs
import numpy as np

from pvops_core.errors import MachineError
from pvops_core.kinds import MachineKind
from pvops_core.x86 import ACCESSED, DIRTY, PAGE, PRESENT, WRITABLE

if TYPE_CHECKING:
    from pvops_core.machine import PhysicalMemory

# ACCESSED and DIRTY at once: the processor would set them, and memory would change with each first use.
LEAF: Final = PRESENT | WRITABLE | ACCESSED | DIRTY
BRANCH: Final = PRESENT | WRITABLE | ACCESSED
LEVELS: Final = {
    MachineKind.I386: ((22, 10), (12, 10)),
    MachineKind.PAE: ((30, 2), (21, 9), (12, 9)),
    MachineKind.X86_64: ((39, 9), (30, 9), (21, 9), (12, 9)),
}
"""Shift and width of the index at each level, top level first."""


@attrs.define
class TableBuilder:
    """Makes tables in consecutive frames from ``next_frame`` on."""

    memory: PhysicalMemory
    kind: MachineKind
    next_frame: int

    def build(self, frames: int, base: int) -> int:
        """Maps frames 0 to ``frames`` at virtual 0 and at ``base``; returns the root's physical address.

        Both places share their last-level tables.

        Raises:
            MachineError: that many frames do not fit above ``base``, or the tables do not fit into memory.
        """
        # The span that the root's indices reach; 64 bits wrap by themselves.
        shift, width = LEVELS[self.kind][0]
        span = 1 << min(shift + width, 64)
        if base % span + frames * PAGE > span:
            raise MachineError(f"{frames * PAGE >> 20} MiB of memory do not fit above {base:#x}")
        root = self._table()
        # Made once and hung twice: both mappings show the same leaves.
        leaves = list(self._leaves(frames))
        for start in (0, base):
            for number, leaf in enumerate(leaves):
                self._hang(root, start + number * self._leaf_span(), leaf)
        return root

    def _leaf_span(self) -> int:
        return PAGE << LEVELS[self.kind][-1][1]

    def _table(self) -> int:
        address = self.next_frame * PAGE
        # Frames may hold what a test left in them.
        self.memory.write(address, bytes(PAGE))
        self.next_frame += 1
        return address

    def _leaves(self, frames: int) -> Iterator[int]:
        """Last-level tables for frames 0 to ``frames``."""
        size = self.kind.entry_size
        per_table = PAGE // size
        for first in range(0, frames, per_table):
            # Whole numbers of frames at a time: a loop over entries takes seconds for a GiB.
            numbers = np.arange(first, min(first + per_table, frames), dtype=np.uint64)
            entries = (numbers * PAGE | LEAF).astype(f"<u{size}")
            table = self._table()
            self.memory.write(table, entries.tobytes())
            yield table

    def _hang(self, root: int, va: int, leaf: int) -> None:
        """Puts a last-level table into its place under the root, making the tables between."""
        table = root
        *between, last = LEVELS[self.kind][:-1]
        for shift, width in between:
            place = self._place(table, va, shift, width)
            if not self._entry(place) & PRESENT:
                # The top level of PAE has neither a writable nor an accessed bit.
                flags = PRESENT if self.kind is MachineKind.PAE else BRANCH
                self._set(place, self._table() | flags)
            # Flags are in the low 12 bits.
            table = self._entry(place) & ~(PAGE - 1)
        self._set(self._place(table, va, *last), leaf | BRANCH)

    def _place(self, table: int, va: int, shift: int, width: int) -> int:
        return table + (va >> shift & (1 << width) - 1) * self.kind.entry_size

    def _entry(self, place: int) -> int:
        return self.memory.u32(place) if self.kind is MachineKind.I386 else self.memory.u64(place)

    def _set(self, place: int, value: int) -> None:
        if self.kind is MachineKind.I386:
            self.memory.set_u32(place, value)
        else:
            self.memory.set_u64(place, value)
