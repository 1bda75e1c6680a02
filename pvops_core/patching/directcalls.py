"""The call sites of kernels from 6.8 on: ALTERNATIVEs that hold a direct call.

The first entry of such a group always applies; its replacement is ``call BUG_func``, whose target the kernel changes
to what the slot of the ``call *slot`` holds (``alt_replace_call``, arch/x86/kernel/alternative.c). Nothing but that
operand says which op it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pvops_core.patching.altinstructions.alternatives import AltGroup, grouped, read_alternatives
from pvops_core.patching.code.operands import slot_operand
from pvops_core.patching.code.relocation import BRANCH_SIZE, CALL
from pvops_core.patching.records import SiteRecord
from pvops_core.patching.tables import place_layout
from pvops_core.patching.text import BuiltText, executable_sections, holders, overlap

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.patching.altinstructions.alternatives import AltEntry

SECTION: Final = ".altinstructions"
CALL_THROUGH: Final = b"\xff\x15"
SITE_SIZE: Final = 6


def read_direct_calls(image: KernelImage) -> tuple[SiteRecord, ...]:
    """All sites among the ALTERNATIVEs, in their order; empty if there is none.

    Raises:
        ImageError: a record is damaged, or annotates something that is no call through a table of ops.
    """
    groups = [group for group in grouped(read_alternatives(image)) if group.direct is not None]
    if not groups:
        return ()
    text, sections = BuiltText(image), executable_sections(image)
    slots = [_slot(image, text, group) for group in groups]
    # Sites do not say which op they are: the slot that they call through is the only sign.
    layout, addresses = place_layout(image, {slot: _first(group) for slot, group in zip(slots, groups, strict=True)})
    types = {address: number for number, address in enumerate(addresses[: len(layout.slots)])}
    places = np.array([group.address for group in groups], np.uint64)
    sizes = np.full(len(groups), SITE_SIZE, np.uint64)
    # Overlapping sites would each be patched over the other.
    if (pair := overlap(places, sizes)) is not None:
        first, second = (groups[number] for number in pair)
        raise _first(second).error(image, "instr", f"{second.address:#x} overlaps the site at {first.address:#x}")
    where = holders(sections, places, sizes).tolist()
    return tuple(
        SiteRecord(
            group.address,
            types[slot],
            group.length,
            0,
            sections[section].name,
            f"{SECTION}[{_first(group).index}]",
            _first(group).offset,
        )
        for group, slot, section in zip(groups, slots, where, strict=True)
    )


def _first(group: AltGroup) -> AltEntry:
    assert group.direct is not None, "only groups with one are asked about"
    return group.direct


def _slot(image: KernelImage, text: BuiltText, group: AltGroup) -> int:
    """The slot that a site calls through; ImageError where the kernel would stop with BUG."""
    entry = _first(group)
    code = text.read(group.address, group.length)
    # ``alt_replace_call`` BUGs on anything else.
    if group.length != SITE_SIZE or not code.startswith(CALL_THROUGH):
        raise entry.error(
            image, "instr", f"annotates {code[:16].hex(' ')}, which is no call *slot of {SITE_SIZE} bytes"
        )
    made = text.read(entry.replacement, entry.replacement_length)
    if len(made) != BRANCH_SIZE or made[0] != CALL:
        raise entry.error(image, "repl", f"is {made[:16].hex(' ') or 'empty'}, not a call of {BRANCH_SIZE} bytes")
    slot = slot_operand(code, group.address, image.pointer_size)
    assert slot is not None, "a call *slot has one"
    return slot
