"""Text that was rewritten while a vCPU executes, and that the others have to translate anew before they next run.

An engine sees the stores that it executes itself, and nobody else runs meanwhile. So what the others keep of the old
text does no harm until their turn comes, and a kernel rewrites tens of thousands of places in one turn of one vCPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from collections import Counter

    from pvops_core.machine.cpu.vcpu import Vcpu
    from pvops_core.machine.engines import Engine

_FEW: Final = 8
"""Where more pages have changed, all of an engine's code goes: to bring it back costs less than to drop each."""


class Translating(Protocol):
    """A vCPU with its engine.

    Attributes:
        renewed: how much of what was rewritten it knows of.
    """

    vcpu: Vcpu
    engine: Engine
    renewed: int


class Rewritten:
    """The pages rewritten last, and who has dropped what it had translated of them.

    Attributes:
        turn: changes with every vCPU that executes after another.
    """

    def __init__(self) -> None:
        self.turn = 0
        self._whose: Translating | None = None
        self._written = 0
        self._pages: dict[int, int] = {}  # virtual address to the count at which it was written, in that order
        self._forgotten = 0  # the count of the newest that is not among them any more

    def note(self, page: int, slot: Translating, counts: Counter[str], *, known: bool) -> None:
        """A page, at this virtual address, was rewritten; ``known`` to the engine of the vCPU that executes."""
        # The executing engine saw its own stores; only other engines may hold old code.
        if not known:
            _drop(slot, [page], counts)
        self._written += 1
        self._pages.pop(page, None)
        self._pages[page] = self._written
        # Beyond some pages each vCPU flushes all when its turn comes: a kernel that patches itself rewrites
        # thousands.
        if len(self._pages) > _FEW:
            self._forgotten = self._pages.pop(next(iter(self._pages)))
        slot.renewed = self._written

    def enter(self, slot: Translating, counts: Counter[str]) -> None:
        """A vCPU is about to execute: nothing old of what others have written."""
        if slot is not self._whose:
            self.turn += 1
            self._whose = slot
        if slot.renewed == self._written:
            return
        pages = [page for page, count in self._pages.items() if count > slot.renewed]
        # Pages written long ago are not in the list any more: everything goes, which is never wrong.
        _drop(slot, None if slot.renewed < self._forgotten else pages, counts)
        slot.renewed = self._written

    def restored(self) -> None:
        """The machine is another than before: who executes next begins a turn."""
        self._whose = None


def _drop(slot: Translating, pages: list[int] | None, counts: Counter[str]) -> None:
    """Drop what an engine has translated of pages, or of all."""
    if pages is None or not _sees(slot, pages):
        counts["code_flushes"] += 1
        slot.engine.flush_code()
        return
    counts["code_ranges_dropped"] += len(pages)
    for page in pages:
        slot.engine.remove_code(page, page + PAGE)


def _sees(slot: Translating, pages: list[int]) -> bool:
    """An engine translates addresses as the CPU would now, and a fault in that is kept for its next run."""
    try:
        for page in pages:
            slot.vcpu.walk(page, fetch=True)
    except GuestFault:
        return False
    return True
