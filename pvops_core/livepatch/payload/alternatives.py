"""ALTERNATIVE entries inside a payload: applied to its own text before anybody runs it.

Source: check_special_sections of xen/common/livepatch.c (they must speak of the payload's text) and struct alt_instr of
Linux 5.13 to 6.2, which a payload for those kernels is compiled with: two distances, feature, two lengths.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING

from pvops_core.livepatch.payload.area import PageRights
from pvops_core.patching.altinstructions.alternatives import INVERTED, AltEntry, Padding, replace
from pvops_core.patching.code.disasm import instruction_lengths
from pvops_core.patching.code.nops import NOPS, NopKind

if TYPE_CHECKING:
    from pvops_core.livepatch.payload.linking import Linked

SECTION, REPLACEMENT = ".altinstructions", ".altinstr_replacement"
# struct alt_instr (asm/alternative.h, 5.13 to 6.2).
_ENTRY = struct.Struct("<iiHBB")


def apply_alternatives(linked: Linked, features: frozenset[int]) -> None:
    """Replace what the features ask for; EINVAL for entries that do not speak of the payload's own text."""
    item, section = linked.item, linked.item.section(SECTION)
    if section is None or not section.loaded:
        return
    # Entries without replacements cannot be meant.
    if item.section(REPLACEMENT) is None:
        raise item.error("is missing", REPLACEMENT)
    data, start = linked.section_bytes(section), linked.addresses[section.index]
    if len(data) % _ENTRY.size:
        raise item.error(f"{len(data):#x} bytes are no whole number of entries", SECTION)
    # The same nops as apply_alternatives() has for that width.
    padding = Padding(
        NOPS[NopKind.MODERN_64 if item.bits == 64 else NopKind.GENERIC], partial(instruction_lengths, bits=item.bits)
    )
    for index in range(len(data) // _ENTRY.size):
        entry = _entry(linked, data, index, start)
        # Features of the guest, not of this payload: what its own text was patched by.
        if entry.applies(features):
            region = linked.region(entry.address)
            code = linked.bytes_at(entry.replacement, entry.replacement_length)
            assert region is not None, "checked with the entry"
            assert code is not None, "likewise"
            at = entry.address - region.address
            region.data[at : at + entry.length] = replace(entry, code, padding)


def _entry(linked: Linked, data: bytes, index: int, start: int) -> AltEntry:
    old, new, word, length, replacement_length = _ENTRY.unpack_from(data, index * _ENTRY.size)
    place, mask = start + index * _ENTRY.size, (1 << linked.item.bits) - 1
    made = AltEntry(
        place + old & mask, length, place + 4 + new & mask, replacement_length, word & ~INVERTED, bool(word & INVERTED)
    )
    field = f"{SECTION}[{index}]"
    # check_special_sections() does not ask this, and add_nops() would then be given a negative length.
    if replacement_length > length:
        raise linked.item.error(f"replaces {length} bytes by {replacement_length}", field)
    for address, size in ((made.address, length), (made.replacement, replacement_length)):
        region = linked.region(address, PageRights.TEXT)
        # A replacement of no bytes has no address worth checking.
        if size and (region is None or address + size > region.end):
            raise linked.item.error(f"{address:#x}+{size:#x} is not in the payload's text", field)
    return made
