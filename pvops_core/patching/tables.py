"""Which layout a kernel's table has, told from its type information, or from its sites and what the table holds.

No version is looked at: a site's operand says where its slot is, and the function there bears the op's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import ImageError
from pvops_core.ops import LAYOUTS
from pvops_core.patching.derived import layout_from_types
from pvops_core.patching.fills import NOP_NAMES
from pvops_core.patching.sites import SiteRecord, site_error, slot_operand
from pvops_core.patching.text import Text

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.ops import Layout

ENOUGH: Final = 0.5
"""Share of filled slots whose function must bear the op's name: over 0.6 in the right layout, near 0 in others."""


@attrs.frozen(eq=False)
class SiteTable:
    """A kernel's table as its sites see it.

    Attributes:
        layout: the catalogue's layout that fits.
        slots: type number to the virtual address of the slot, for the types that sites name.
        seen: type number to the index of the first such site.
    """

    layout: Layout
    slots: Mapping[int, int]
    seen: Mapping[int, int]

    @property
    def first(self) -> tuple[int, int]:
        """Index and type of the first site whose slot is known."""
        type_, index = next(iter(self.seen.items()))
        return index, type_


def find_table(image: KernelImage, sites: Sequence[SiteRecord]) -> SiteTable:
    """Find the layout whose op names fit the functions in the table.

    Raises:
        ImageError: the sites name types that no layout has, or call through no table at all, or through one of
            a generation that the catalogue has not got.
    """
    slots, seen = _slots(image, sites)
    if not slots:
        raise site_error(
            image, 0, "instr", "no site calls through a table: the image is patched already, or is no kernel"
        )
    derived = layout_from_types(image)
    candidates = [layout for layout in LAYOUTS.values() if layout.pointer_size == image.pointer_size]
    if derived is not None:
        candidates = [derived]
    most = max(len(layout.slots) for layout in candidates)
    for index, site in enumerate(sites):
        if site.type >= most:
            raise site_error(image, index, "type", f"is {site.type}; no {image.machine} table has more than {most} ops")
    if derived is not None:
        return SiteTable(derived, slots, seen)
    highest = max(site.type for site in sites)
    names = _functions(image, slots)
    fitting = [(_score(layout, names), layout) for layout in candidates if len(layout.slots) > highest]
    score, layout = max(fitting, key=lambda pair: pair[0])
    if score < ENOUGH:
        known = ", ".join(sorted(LAYOUTS))
        index = seen[min(slots)]
        raise site_error(image, index, "instr", f"calls through a table that fits none of the layouts {known}")
    return SiteTable(layout, slots, seen)


def _slots(image: KernelImage, sites: Sequence[SiteRecord]) -> tuple[dict[int, int], dict[int, int]]:
    text = Text(image)
    slots: dict[int, int] = {}
    seen: dict[int, int] = {}
    for index, site in enumerate(sites):
        address = slot_operand(text.read(site.address, site.length), site.address, image.pointer_size)
        if address is None:
            continue
        if slots.setdefault(site.type, address) != address:
            message = f"is {site.type}, whose other sites call through {slots[site.type]:#x}, not {address:#x}"
            raise site_error(image, index, "type", message)
        seen.setdefault(site.type, index)
    return slots, seen


def _functions(image: KernelImage, slots: Mapping[int, int]) -> dict[int, str]:
    """Type number to the name of the function in its slot; not for empty slots and those that do nothing."""
    names = {}
    for type_, address in slots.items():
        try:
            target = image.pointers(address, 1)[0]
        except ImageError:
            continue
        found = image.symbol_at(target) if target else None
        if found is not None and found[1] == 0 and found[0] not in NOP_NAMES:
            names[type_] = found[0]
    return names


def _score(layout: Layout, names: Mapping[int, str]) -> float:
    if not names:
        return 0.0
    hits = sum(layout.slots[type_].path.rpartition(".")[2] in name for type_, name in names.items())
    return hits / len(names)
