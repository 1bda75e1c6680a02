"""A running kernel's table of ops: which layout it has, where it is, and what its slots hold now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.errors import ImageError
from pvops_core.patching.sites import SECTION, SiteRecord, read_sites
from pvops_core.patching.tables import find_table

if TYPE_CHECKING:
    from pvops_core.guest import GuestText
    from pvops_core.images import KernelImage
    from pvops_core.ops import Layout, Slot


class RunningTable:
    """The table, found by the kernel's own sites, whatever its symbols say.

    Attributes:
        layout: its layout.
        sites: the sites that call through it, in the order of their section.

    Raises:
        ImageError: the kernel has no annotated sites, or a table that the catalogue does not know.
    """

    layout: Layout
    sites: tuple[SiteRecord, ...]

    def __init__(self, image: KernelImage, text: GuestText) -> None:
        self._image = image
        self._text = text
        self.sites = read_sites(image)
        if not self.sites:
            raise image.error("is not there: no call of an op is annotated in this kernel", field=SECTION)
        table = find_table(image, self.sites)
        self.layout = table.layout
        self._slots = table.slots
        index, type_ = table.first
        del index
        self._base = table.slots[type_] - type_ * image.pointer_size

    def address(self, slot: Slot) -> int:
        """Guest-virtual address of a slot: where its sites say, or its place in a table that lies in one piece."""
        return self._slots.get(slot.type, self._base + slot.type * self.layout.pointer_size)

    def target(self, slot: Slot) -> int:
        """What the slot holds now: a guest-virtual address, 0 for an empty slot."""
        return self._text.pointers(self.address(slot), 1, self.layout.pointer_size)[0]

    def targets(self) -> tuple[int, ...]:
        """What all slots hold now, by type number."""
        return tuple(self.target(slot) for slot in self.layout.slots)

    def name(self, target: int) -> str:
        """What people call what a slot holds: a symbol, perhaps with a distance; "empty" for 0."""
        if not target:
            return "empty"
        found = self._image.symbol_at(target)
        if found is None:
            return f"{target:#x}"
        return f"{found[0]}+{found[1]:#x}" if found[1] else found[0]

    def slot(self, op: str) -> Slot:
        """The slot of an op, by its hook name (``write_cr3``) or the kernel's path (``mmu.write_cr3``).

        Raises:
            UsageError: the layout has none.
        """
        return self.layout.by_path(op) if "." in op else self.layout.by_op(op)


def find_running_table(image: KernelImage, text: GuestText) -> RunningTable | None:
    """The table of a kernel that runs; None where it has none that is known."""
    try:
        return RunningTable(image, text)
    except ImageError:
        return None
