"""Kernel text that one processor rewrites must reach what the others have translated of it.

Each processor has an engine of its own, which sees the stores that it executes itself and nobody else's. Hardware asks
the same care of software: whoever modifies another processor's code has it execute a serialising instruction before it
runs there (Intel SDM volume 3, 8.1.3), and to make it do so sends it an interrupt. So it is enough to look when one
has been sent. Looking is comparing the text with a copy: 0.6 ms for the 14 MiB of a distribution kernel, some 250 times
in a boot with two processors; and likewise what is executable beside the image (``moduletext``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import attrs
import numpy as np

from pvops_core.machine import GuestFault, MachineKind
from pvops_core.machine.memory import PAGE, same_bytes
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
    """Text that lies together: its virtual address, where it is in memory, and what it was when last looked at."""

    address: int
    now: NDArray[np.uint8]
    known: NDArray[np.uint8]

    def changes(self) -> Iterator[tuple[int, int]]:
        """Virtual ranges whose bytes have changed since the last time, one a page."""
        # memcmp first: nothing has changed nearly always.
        if same_bytes(self.now, self.known):
            return
        places = np.flatnonzero(self.now != self.known)
        self.known[places] = self.now[places]
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
        self._stretches = [_Stretch(address, now, now.copy()) for address, now in _text(image, machine.memory.array)]

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
            changes += (change for stretch in self._stretches for change in stretch.changes())
            # Page tables are looked at when a processor is next in the kernel: until then nothing of it runs.
            self._owing = True
        if self._owing and (root := self._root()) is not None:
            changes += self._modules.changes(root)
            self._owing = False
        if changes:
            self._machine.invalidate(changes)

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


def _text(image: KernelImage, memory: NDArray[np.uint8]) -> Iterable[tuple[int, NDArray[np.uint8]]]:
    """Virtual address and place in memory of each executable section."""
    for section in image.sections:
        for segment in image.segments:
            # Sections lie in segments by address; one of the first match only, since segments may overlap in memory.
            if section.executable and section.size and segment.address <= section.address:
                offset = section.address - segment.address
                if offset + section.size <= segment.memory_size:
                    start = segment.physical + offset
                    yield section.address, memory[start : start + section.size]
