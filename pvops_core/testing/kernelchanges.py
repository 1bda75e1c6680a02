"""What has changed in a booted kernel's machine between two looks, found without looking at all of its memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from pvops_core.errors import ImageError
from pvops_core.machine.faults import GuestFault
from pvops_core.machine.written import written_pages
from pvops_core.testing.changes import ACCESSED_DIRTY, ARITHMETIC, PRESENT, Change, Changes, registers_of

if TYPE_CHECKING:
    from pvops_core.machine import Snapshot, Vcpu
    from pvops_core.session import Session

PAGE: Final = 0x1000
STACK_PAGES: Final = 4
"""Pages of stack below the stack pointer at most: THREAD_SIZE is 16 KiB (8 KiB on i386)."""
_DIRECT_MAP: Final = {32: 0xC0000000, 64: 0xFFFF888000000000}
"""PAGE_OFFSET: where Linux maps all memory one to one, unless ``page_offset_base`` says otherwise."""


class KernelLook:
    """A booted kernel's machine as it is now, to be compared with what it is later.

    Args:
        session: its session; the machine has gone back to the snapshot at some time before.
        snapshot: the snapshot.
        cpu: the vCPU whose registers are looked at.
        frames: machine address of a page to the kernel's physical one.
    """

    def __init__(self, session: Session, snapshot: Snapshot, cpu: Vcpu, frames: Mapping[int, int]) -> None:
        self._session = session
        self._snapshot = snapshot.memory
        self._cpu = cpu
        self._frames = frames
        memory = session.machine.memory
        self._pages = {page: memory.read(page, PAGE) for page in written_pages(memory, self._snapshot)}
        self._registers = registers_of(cpu)
        self._stack = tuple(self._stack_pages())
        self._top = cpu.rsp

    def _stack_pages(self) -> Iterator[tuple[int, int]]:
        """Virtual and machine address of the pages of the stack from its pointer down, as far as they are mapped."""
        page = self._cpu.rsp & -PAGE
        for _ in range(STACK_PAGES):
            try:
                yield page, self._cpu.walk(page, user=False).pa
            except GuestFault:
                return
            page -= PAGE

    def changes(self, *, lost: frozenset[str]) -> Changes:
        """What is different now, without ``lost`` registers, and without the stack below its pointer of then."""
        registers = {
            name: Change(self._registers[name], new)
            for name, new in registers_of(self._cpu).items()
            if name not in lost and (self._registers[name] ^ new) & (~ARITHMETIC if name == "rflags" else -1)
        }
        return Changes(registers, dict(self._memory()))

    def _memory(self) -> Iterator[tuple[int, Change]]:
        memory, size = self._session.machine.memory, self._session.machine.kind.pointer_size
        dead = {frame: max(0, min(PAGE, self._top - page)) for page, frame in self._stack}
        for page in written_pages(memory, self._snapshot):
            physical = self._frames.get(page)
            if physical is None:
                continue  # the platform's own
            before = self._pages.get(page) or self._snapshot.read(page, PAGE)
            yield from self._words(physical, dead.get(page, 0), before, memory.read(page, PAGE), size)

    def _words(self, physical: int, skip: int, before: bytes, after: bytes, size: int) -> Iterator[tuple[int, Change]]:
        if before == after:
            return
        old, new = (np.frombuffer(data, f"<u{size}") for data in (before, after))
        for place in np.flatnonzero(old != new).tolist():
            was, now = int(old[place]), int(new[place])
            seen_only = was & PRESENT and not (was ^ now) & ~ACCESSED_DIRTY
            if place * size >= skip and not seen_only:
                yield self._virtual(physical + place * size), Change(was, now)

    def _virtual(self, physical: int) -> int:
        """Where the kernel sees a byte: in its image, or in its map of all memory."""
        image = self._session.kernel.image
        for segment in image.segments:
            if segment.address and 0 <= physical - segment.physical < segment.memory_size:
                return segment.address + physical - segment.physical
        return self._direct_map + physical

    @property
    def _direct_map(self) -> int:
        bits = self._session.machine.kind.bits
        symbol = self._session.kernel.image.symbols.get("page_offset_base")
        try:
            base = self._session.text.pointers(symbol, 1, bits // 8)[0] if symbol else 0
        except ImageError:
            base = 0
        return base or _DIRECT_MAP[bits]
