"""A running guest's table of ops: which layout it has, where it is, and what its slots hold now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import ImageError, MachineError
from pvops_core.patching.poke import Poke
from pvops_core.patching.sites import SECTION, read_sites
from pvops_core.patching.tables import find_table

if TYPE_CHECKING:
    from pvops_core.guest import GuestText
    from pvops_core.images import KernelImage
    from pvops_core.ops import Layout, Slot
    from pvops_core.patching.records import SiteRecord


class OpTable:
    """The table of ops in a guest's memory.

    Args:
        image: the guest's image, whose symbols name what slots hold.
        text: reads it as it is in memory.
        layout: the table's layout.
        sites: the sites that call through it, in the order of their section.
        address: guest-virtual address of a slot; MachineError if the guest does not say where it is.
    """

    def __init__(
        self,
        image: KernelImage,
        text: GuestText,
        layout: Layout,
        sites: tuple[SiteRecord, ...],
        address: Callable[[Slot], int],
    ) -> None:
        self._image = image
        self._text = text
        self.layout = layout
        self.sites = sites
        self.address = address

    def target(self, slot: Slot) -> int:
        """What the slot holds now: a guest-virtual address, 0 for an empty slot."""
        return self._text.pointers(self.address(slot), 1, self.layout.pointer_size)[0]

    def poke(self, slot: Slot, old: int, new: int) -> Poke:
        """The write that puts another function into a slot."""
        size = self.layout.pointer_size
        return Poke(self.address(slot), old.to_bytes(size, "little"), new.to_bytes(size, "little"))

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


def by_symbols(symbols: Mapping[str, int]) -> Callable[[Slot], int]:
    """Where slots are that have symbols of their own, as the built-in guest's have."""

    def address(slot: Slot) -> int:
        try:
            return symbols[slot.symbol] + slot.offset
        except KeyError:
            raise MachineError(f"the guest has no symbol {slot.symbol}", op=slot.op.name) from None

    return address


def find_running_table(image: KernelImage, text: GuestText) -> OpTable | None:
    """The table of a kernel that runs, found by its own sites; None where it has none that is known."""
    try:
        return _by_sites(image, text)
    except ImageError:
        return None


def why_unknown(image: KernelImage, text: GuestText) -> str:
    """Why :func:`find_running_table` gives none."""
    try:
        _by_sites(image, text)
    except ImageError as failure:
        return f"{failure.field}: {failure.message}" if failure.field else failure.message
    return ""


def _by_sites(image: KernelImage, text: GuestText) -> OpTable:
    sites = read_sites(image)
    if not sites:
        raise image.error("is not there: no call of an op is annotated in this kernel", field=SECTION)
    found = find_table(image, sites)
    _, first = found.first
    size, slots = found.layout.pointer_size, found.slots
    base = slots[first] - first * image.pointer_size  # a table in one piece begins so far before any slot of it

    def address(slot: Slot) -> int:
        """Where the slot's sites say, or its place in a table that lies in one piece."""
        return slots.get(slot.type, base + slot.type * size)

    # A kernel calls the hooks of its boot through no table: only the built-in guest has one of them.
    return OpTable(image, text, attrs.evolve(found.layout, boot_hooks=()), sites, address)
