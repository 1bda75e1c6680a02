"""Which layout a kernel's table has, told from its type information, or from its sites and what the table holds.

No version is looked at: a site's operand says where its slot is, and the function there bears the op's name.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import ImageError, LayoutError
from pvops_core.ops import LAYOUTS
from pvops_core.ops.linux_ages import GROUPS, ONE_TABLE
from pvops_core.patching.bysymbols import layout_from_dwarf, layout_from_symbols
from pvops_core.patching.code.operands import slot_operand
from pvops_core.patching.derived import layout_from_types
from pvops_core.patching.fills import NOP_NAMES
from pvops_core.patching.text import BuiltText

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.ops import Layout
    from pvops_core.patching.altinstructions.altrecords import AltEntry
    from pvops_core.patching.records import SiteRecord

ENOUGH: Final = 0.5
"""Share of filled slots whose function must bear the op's name: over 0.6 in the right layout, near 0 in most others."""


TABLE: Final = "pv_ops"
"""The (first) table of every kernel whose call sites do not say themselves where it is."""

_FIRST: Final = "paravirt_ops"
"""The table of 2.6.23."""

_UNNAMED: Final = (
    "is not named: its symbols are of functions alone, without CONFIG_KALLSYMS_ALL "
    "(the vmlinux that this image was made of names all)"
)


@attrs.frozen(eq=False)
class SiteTable:
    """A kernel's table as its sites see it.

    Attributes:
        layout: the catalogue's layout that fits.
        slots: type number to the virtual address of the slot: of all types where the kernel's symbols or its one table
            say so, else of those that sites name.
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
        LayoutError: the sites call through a table of a generation that the catalogue has not got.
        ImageError: the sites name types that no layout has, or call through no table at all, or not all through one.
    """
    slots, seen = _slots(image, sites)
    # A patched image calls functions by now, and its sites name no slot any more.
    if not slots:
        raise sites[0].error(
            image, "instr", "no site calls through a table: the image is patched already, or is no kernel"
        )
    # What says it outright goes before what has to be made out.
    derived = layout_from_types(image) or layout_from_dwarf(image) or _by_symbols(image, slots)
    candidates = _known(image) if derived is None else [derived]
    most = max((len(layout.slots) for layout in candidates), default=0)
    beyond = next((site for site in sites if site.type >= most > 0), None)
    # One site that is damaged, if the others call through a table that is known; else a table that is not.
    if beyond is not None and (derived or _best(image, ((each, _inside(each, slots)) for each in candidates))):
        raise beyond.error(image, "type", f"is {beyond.type}; no {image.machine} table has more than {most} ops")
    highest = max(site.type for site in sites)
    # A layout with fewer slots than the largest type cannot be the kernel's.
    fitting = [layout for layout in candidates if len(layout.slots) > highest]
    layout = derived or _best(image, ((layout, slots) for layout in fitting))
    if layout is None:
        first = sites[seen[min(slots)]]
        raise LayoutError(
            f"calls through a table that {_fits_none(image)}", image.path, first.offset, f"{first.place}.instr"
        )
    return SiteTable(layout, _checked(image, sites, layout, slots, seen), seen)


def _fits_none(image: KernelImage) -> str:
    """Why a table's layout is not known, as the end of a sentence."""
    if image.symbol_table.source == "kallsyms" and not {*GROUPS, *ONE_TABLE, _FIRST}.intersection(image.symbols):
        return _UNNAMED
    return (
        f"fits none of the layouts {', '.join(sorted(LAYOUTS))} "
        "(a kernel with type information, CONFIG_DEBUG_INFO_BTF, or one to 5.12 with CONFIG_DEBUG_INFO, tells its own)"
    )


def _inside(layout: Layout, slots: Mapping[int, int]) -> Mapping[int, int]:
    return {type_: address for type_, address in slots.items() if type_ < len(layout.slots)}


def slot_addresses(image: KernelImage, sites: Sequence[SiteRecord]) -> dict[int, int]:
    """Type number to the virtual address of the slot that sites of that type call through, whatever the layout.

    Raises:
        ImageError: two sites of one type call through two slots.
    """
    return _slots(image, sites)[0]


def place_layout(image: KernelImage, slots: Mapping[int, AltEntry]) -> tuple[Layout, tuple[int, ...]]:
    """Find the layout whose tables, by the kernel's symbols, have all of the slots that sites call through.

    Args:
        image: the kernel.
        slots: virtual address of each slot to a record of a site that calls through it.

    Returns:
        The layout, and the address of every slot by type number.

    Raises:
        ImageError: the kernel's symbols do not name the tables, or a site calls through none of them.
    """
    derived = layout_from_types(image)
    candidates = _known(image) if derived is None else [derived]
    placed = [(layout, places) for layout in candidates if (places := _places(image, layout)) is not None]
    if not placed and TABLE in image.symbols:
        raise image.error(f"have a table {TABLE} that {_fits_none(image)}", field="symbols")
    if not placed:
        raise image.error(f"do not name {TABLE}: where its table of ops is cannot be told", field="symbols")
    # Every slot that a site calls through must be one of the layout's.
    fitting = [(layout, places) for layout, places in placed if slots.keys() <= set(places)]
    if not fitting:
        layout, places = placed[-1]
        strange = next(address for address in slots if address not in set(places))
        message = f"calls through {strange:#x}, which is no slot of a {layout.name} table of this kernel"
        raise slots[strange].error(image, "instr", message)
    if derived is not None:
        return fitting[0]
    best = _best(image, ((layout, dict(enumerate(places))) for layout, places in fitting))
    if best is None:
        raise next(iter(slots.values())).error(image, "instr", f"calls through a table that {_fits_none(image)}")
    return next((layout, places) for layout, places in fitting if layout is best)


def _known(image: KernelImage) -> list[Layout]:
    """The layouts of the catalogue that there is room for between the kernel's symbols."""
    layouts = (layout for layout in LAYOUTS.values() if layout.pointer_size == image.pointer_size)
    return [layout for layout in layouts if _has_room(image, layout)]


def _has_room(image: KernelImage, layout: Layout) -> bool:
    """Whether each table of a layout ends before the kernel's next symbol, as far as symbols name the tables."""
    ends: dict[str, int] = {}
    for slot in layout.slots:
        ends[slot.symbol] = max(ends.get(slot.symbol, 0), slot.offset + layout.pointer_size)
    addresses = image.symbol_table.addresses
    for symbol, end in ends.items():
        start = image.symbols.get(symbol)
        if start is None:
            continue
        following = bisect_right(addresses, start)
        # The next symbol is somebody else's variable, so the table is shorter than the layout.
        if following < len(addresses) and addresses[following] < start + end:
            return False
    return True


def _by_symbols(image: KernelImage, slots: Mapping[int, int]) -> Layout | None:
    """The layout that the kernel's symbols give: the catalogue's, if that agrees with every site, or one of its own."""
    exact = []
    for layout in _known(image):
        places = _places(image, layout)
        if places is not None and all(type_ < len(places) and places[type_] == at for type_, at in slots.items()):
            exact.append((layout, slots))
    found = _best(image, exact)
    if found is None:
        own = layout_from_symbols(image, slots)
        found = own and _best(image, [(own, slots)])
    return found


def _places(image: KernelImage, layout: Layout) -> tuple[int, ...] | None:
    """The address of every slot by type number; None where the kernel's symbols do not name a table."""
    symbols = image.symbols
    if not {slot.symbol for slot in layout.slots} <= symbols.keys():
        return None
    return tuple(symbols[slot.symbol] + slot.offset for slot in layout.slots)


def _slots(image: KernelImage, sites: Sequence[SiteRecord]) -> tuple[dict[int, int], dict[int, int]]:
    text = BuiltText(image)
    slots: dict[int, int] = {}
    seen: dict[int, int] = {}
    for index, site in enumerate(sites):
        address = slot_operand(text.read(site.address, site.length), site.address, image.pointer_size)
        if address is None:
            continue
        # Sites of one type call through one slot: two would be two tables.
        if slots.setdefault(site.type, address) != address:
            message = f"is {site.type}, whose other sites call through {slots[site.type]:#x}, not {address:#x}"
            raise site.error(image, "type", message)
        seen.setdefault(site.type, index)
    return slots, seen


def _checked(
    image: KernelImage, sites: Sequence[SiteRecord], layout: Layout, slots: Mapping[int, int], seen: Mapping[int, int]
) -> Mapping[int, int]:
    """Where all slots are, if that is known and all sites agree with it; else the slots that sites name."""
    places = _places(image, layout)
    # 2.6.23's table is one variable, whose place the first site gives; others have a symbol for each group.
    if places is None and len({slot.symbol for slot in layout.slots}) == 1:
        type_, address = next(iter(slots.items()))
        places = tuple(address + slot.offset - layout.slots[type_].offset for slot in layout.slots)
    if places is None:
        return slots
    for type_, address in slots.items():
        if address != places[type_]:
            slot = layout.slots[type_]
            message = f"calls through {address:#x}; type {type_} of the table is {slot.path}, at {places[type_]:#x}"
            raise sites[seen[type_]].error(image, "type", message)
    return dict(enumerate(places))


def _best(image: KernelImage, candidates: Iterable[tuple[Layout, Mapping[int, int]]]) -> Layout | None:
    """The layout whose op names the functions in its slots bear most; None if none fits well enough."""
    scored = [(_score(layout, _functions(image, slots)), layout) for layout, slots in candidates]
    score, layout = max(scored, key=lambda pair: pair[0], default=(0.0, None))
    return layout if score >= ENOUGH else None


def _functions(image: KernelImage, slots: Mapping[int, int]) -> dict[int, str]:
    """Type number to the name of the function in its slot; not for empty slots and those that do nothing."""
    names = {}
    for type_, address in slots.items():
        try:
            target = image.pointers(address, 1)[0]
        except ImageError:
            continue
        found = image.symbol_at(target) if target else None
        # Only whole functions: an address inside one is no slot's function.
        if found is not None and found[1] == 0 and found[0] not in NOP_NAMES:
            names[type_] = found[0]
    return names


def _score(layout: Layout, names: Mapping[int, str]) -> float:
    """The share of functions that bear their op's name; 0 if one bears that of another op."""
    ops = [slot.path.rpartition(".")[2] for slot in layout.slots]
    strange = {type_: name for type_, name in names.items() if ops[type_] not in name}
    others = tuple(f"_{op}" for op in ops)
    # A function that ends in another op's name is that op's: the layout is shifted.
    if not names or any(name.endswith(others) for name in strange.values()):
        return 0.0
    return 1 - len(strange) / len(names)
