"""Kernel text that one processor rewrites must reach what the others have translated of it.

Each processor has an engine of its own, which sees the stores that it executes itself and nobody else's. Hardware asks
the same care of software: whoever modifies another processor's code has it execute a serialising instruction before it
runs there (Intel SDM volume 3, 8.1.3), and to make it do so sends it an interrupt. So it is enough to look when one
has been sent. Looking is comparing what the host knows as written with a copy, and all of it where the host does not
tell: 14 MiB of a distribution kernel, some 400 times in a boot with four processors; and likewise what is executable
beside the image (``moduletext``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import attrs
import numpy as np

from pvops_core.machine import GuestFault, MachineKind
from pvops_core.machine.memory import PAGE, WriteWatch, same_bytes
from pvops_native.moduletext import ModuleText

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pvops_core.images import KernelImage
    from pvops_core.machine import Machine

_PAGE_SHIFT: Final = PAGE.bit_length() - 1
_ROOT: Final = 0x000F_FFFF_FFFF_FFE0
"""The address in CR3: that of a page, or of 32 bytes with PAE (Intel SDM volume 3, 4.4.1)."""


@attrs.define(eq=False)
class _Stretch:
    """Text that lies together.

    Attributes:
        address: its virtual address.
        place: its physical one.
        now: its bytes in memory.
        known: what they were when last looked at.
    """

    address: int
    place: int
    now: NDArray[np.uint8]
    known: NDArray[np.uint8]

    def changes(self, written: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Virtual ranges whose bytes have changed since the last time, one a page.

        Args:
            written: begin and end of the physical memory that may have been.
        """
        for start, stop in written:
            first, last = max(start - self.place, 0), min(stop - self.place, self.now.size)
            if first < last:
                yield from self._changes(first, last)

    def _changes(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        now, known = self.now[first:last], self.known[first:last]
        # memcmp first: nothing has changed nearly always.
        if same_bytes(now, known):
            return
        places = np.flatnonzero(now != known)
        known[places] = now[places]
        places += first
        # A change is told by its page, for that is how engines drop what they have translated.
        pages = places + self.address % PAGE >> _PAGE_SHIFT
        for run in np.split(places, np.flatnonzero(np.diff(pages)) + 1):
            yield self.address + int(run[0]), self.address + int(run[-1]) + 1


class TextWatch:
    """The text of a kernel that has been loaded where it is linked to lie."""

    def __init__(self, machine: Machine, image: KernelImage) -> None:
        self._machine = machine
        self._modules = ModuleText(machine.memory, machine.kind, _span(image))
        self._owing = False  # they are still to be looked at
        memory = machine.memory.array
        self._stretches = [
            _Stretch(address, start, memory[start:end], memory[start:end].copy())
            for address, start, end in _text(image, memory.size)
        ]
        self._first = min(stretch.place for stretch in self._stretches) & -PAGE
        self._end = max(stretch.place + stretch.now.size for stretch in self._stretches) + PAGE - 1 & -PAGE
        self._watch = WriteWatch(memory[self._first : self._end])

    def learn(self) -> None:
        """Take the text as it is now for known: nothing is translated."""
        for stretch in self._stretches:
            stretch.known[:] = stretch.now
        self._modules.forget()

    def look(self, *, told: bool) -> None:
        """Between two slices: drop what any engine has translated of bytes that have changed.

        Args:
            told: a processor has sent an interrupt to another.
        """
        changes: list[tuple[int, int]] = []
        if told:
            written = self._written()
            changes += (change for stretch in self._stretches for change in stretch.changes(written))
            # Page tables are looked at when a processor is next in the kernel: until then nothing of it runs.
            self._owing = True
        if self._owing and (root := self._root()) is not None:
            changes += self._modules.changes(root)
            self._owing = False
        if changes:
            self._machine.invalidate(changes)

    def _written(self) -> list[tuple[int, int]]:
        """Physical begin and end of what may have been written since the last time."""
        found = self._watch.written()
        if found is None:
            return [(self._first, self._end)]
        return [(self._first + start, self._first + stop) for start, stop in found]

    def _root(self) -> int | None:
        """The tables of a processor that is in the kernel's address space; None while nobody is."""
        for vcpu in self._machine.vcpus:
            try:
                # A fetch of the kernel's text works only where its tables are in force (with isolation, user mode's
                # have none).
                vcpu.walk(self._stretches[0].address, fetch=True)
            except GuestFault:
                continue
            return vcpu.cr3 & (_ROOT if self._machine.kind is MachineKind.PAE else _ROOT & ~(PAGE - 1))
        return None


def _span(image: KernelImage) -> tuple[int, int]:
    """Where the kernel's image lies."""
    ends = [segment.address + segment.memory_size for segment in image.segments]
    return min(segment.address for segment in image.segments), max(ends)


def _text(image: KernelImage, size: int) -> Iterable[tuple[int, int, int]]:
    """Virtual address of each executable section, and its physical begin and end, with so much memory."""
    for section in image.sections:
        for segment in image.segments:
            # Sections lie in segments by address; one of the first match only, since segments may overlap in memory.
            if section.executable and section.size and segment.address <= section.address:
                offset = section.address - segment.address
                if offset + section.size <= segment.memory_size:
                    start = segment.physical + offset
                    yield section.address, start, min(start + section.size, size)
