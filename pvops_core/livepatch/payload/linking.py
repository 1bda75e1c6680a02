"""Gives a payload's sections their places in the guest, resolves its symbols and relocates it.

Source: move_payload of xen/common/livepatch.c, livepatch_elf_resolve_symbols of xen/common/livepatch_elf.c and
arch_livepatch_perform_rela of xen/arch/x86/livepatch.c; the ELF supplements for the meaning of relocations.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NoReturn

import attrs

from pvops_core.livepatch.payload.area import PageRights
from pvops_core.livepatch.payload.objects import (
    SHF_EXECINSTR,
    SHF_WRITE,
    SHN_ABS,
    SHN_COMMON,
    SHN_LORESERVE,
    SHN_UNDEF,
    ObjectSection,
    ObjectSymbol,
    RelocatableObject,
    Relocation,
)

if TYPE_CHECKING:
    from pvops_core.livepatch.payload.area import PayloadArea


@attrs.frozen
class Region:
    """A run of pages of one payload.

    Attributes:
        access: what they are for.
        address: guest-virtual address of the first.
        data: their bytes, as placed.
    """

    access: PageRights
    address: int
    data: bytearray = attrs.field(repr=False)

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.address + len(self.data)

    def __contains__(self, address: int) -> bool:
        return self.address <= address < self.end


def access_of(item: RelocatableObject, section: ObjectSection) -> PageRights:
    """Where a section belongs (move_payload()); EINVAL for one that is writable and executable."""
    match section.flags & (SHF_WRITE | SHF_EXECINSTR):
        # Pages have rights as a whole, so sections of one kind lie together (calc_section()).
        case 0:
            return PageRights.RODATA
        case flags if flags == SHF_EXECINSTR:
            return PageRights.TEXT
        case flags if flags == SHF_WRITE:
            return PageRights.DATA
    raise item.error("writable and executable sections are not supported", section.name, errno.EINVAL)


@attrs.frozen
class Linked:
    """A payload in its places.

    Attributes:
        item: the object file.
        regions: its pages, in the order of :class:`PageRights`.
        addresses: section number to guest-virtual address.
        symbols: symbol number to value.
    """

    item: RelocatableObject
    regions: tuple[Region, ...]
    addresses: Mapping[int, int]
    symbols: tuple[int, ...]

    def region(self, address: int, access: PageRights | None = None) -> Region | None:
        """The region that an address lies in."""
        return next((r for r in self.regions if address in r and access in {None, r.access}), None)

    def bytes_at(self, address: int, length: int) -> bytes | None:
        """Bytes of the payload; None if they are not all its own."""
        region = self.region(address)
        if region is None or address + length > region.end:
            return None
        return bytes(region.data[address - region.address : address - region.address + length])

    def section_bytes(self, section: ObjectSection) -> bytes:
        """A loaded section after relocation."""
        return self.bytes_at(self.addresses[section.index], section.size) or b""


def link(item: RelocatableObject, area: PayloadArea, lookup: Callable[[str], int | None], spare: int) -> Linked:
    """move_payload(), resolve and relocate.

    Args:
        item: the object.
        area: where pages come from; those of the result are taken, those of a failure are not.
        lookup: value of a symbol that the object does not define.
        spare: bytes wanted at the end of the data region, for the core's own use.

    Raises:
        PayloadError: ENOMEM, ENOENT for a symbol, EOPNOTSUPP for a relocation, EOVERFLOW, EINVAL.
    """
    places, sizes = _lay_out(item, spare)
    regions: list[Region] = []
    try:
        # Data region always: the description of the payload is put at its end.
        for access, size in sizes.items():
            if size:
                regions.append(Region(access, area.allocate(size), bytearray(size)))
        bases = {region.access: region.address for region in regions}
        addresses = {index: bases[access] + offset for index, (access, offset) in places.items()}
        linked = Linked(item, tuple(regions), addresses, _resolve(item, addresses, lookup))
        for index, address in addresses.items():
            _fill(linked, index, address)
    except BaseException:
        for region in regions:
            area.release(region.address)
        raise
    return linked


def _lay_out(item: RelocatableObject, spare: int) -> tuple[dict[int, tuple[PageRights, int]], dict[PageRights, int]]:
    """Section number to region and offset, and the regions' sizes."""
    sizes = dict.fromkeys(PageRights, 0)
    places = {}
    for section in item.sections:
        if section.loaded:
            access = access_of(item, section)
            offset = -(-sizes[access] // section.align) * section.align
            places[section.index] = access, offset
            sizes[access] = offset + section.size
    # The description is made of words, so it begins on one.
    sizes[PageRights.DATA] = -(-sizes[PageRights.DATA] // 16) * 16 + spare
    return places, sizes


def _resolve(
    item: RelocatableObject, addresses: Mapping[int, int], lookup: Callable[[str], int | None]
) -> tuple[int, ...]:
    return tuple(
        # Symbol 0 is the null symbol.
        0 if not number else _value(item, number, symbol, addresses, lookup)
        for number, symbol in enumerate(item.symbols)
    )


def _value(
    item: RelocatableObject,
    number: int,
    symbol: ObjectSymbol,
    addresses: Mapping[int, int],
    lookup: Callable[[str], int | None],
) -> int:
    field = f"symbol[{number}] {symbol.name}"
    if symbol.section == SHN_UNDEF:
        value = lookup(symbol.name)
        if value is None:
            raise item.error("is neither the guest's nor an earlier payload's", field, errno.ENOENT)
        return value
    if symbol.section == SHN_ABS:
        return symbol.value
    if symbol.section == SHN_COMMON:
        raise item.error("is a common symbol; compile with -fno-common", field)
    # Reserved indices mean nothing here.
    if symbol.section >= SHN_LORESERVE or symbol.section >= len(item.sections):
        raise item.error(f"is in section {symbol.section} of {len(item.sections)}", field)
    # Symbols of what is not loaded (debug information) are never used: no relocation is for such sections.
    return addresses.get(symbol.section, 0) + symbol.value


def _fill(linked: Linked, index: int, address: int) -> None:
    """Copy a section into its region and relocate it."""
    section = linked.item.sections[index]
    region = linked.region(address)
    assert region is not None, "a section was given a place in a region"
    start = address - region.address
    region.data[start : start + len(section.data)] = section.data
    for relocation in linked.item.relocations.get(index, ()):
        size = _SIZES.get(linked.item.bits, {}).get(relocation.type)
        if size is None:
            # Refused, not skipped: a relocation that is left out would be a wrong address.
            raise linked.item.error(f"relocation type {relocation.type}", relocation.field, errno.EOPNOTSUPP)
        if relocation.offset + size > section.size:
            message = f"is for {relocation.offset:#x} of {section.name}, which has {section.size:#x} bytes"
            raise linked.item.error(message, relocation.field)
        if size:
            _relocate(linked, relocation, region, start + relocation.offset, size)


# Bytes that a relocation writes, by width of the machine and type: R_X86_64_NONE, 64, PC32, PLT32, 32, 32S, PC64 and
# R_386_NONE, 32, PC32, PLT32 (the psABIs' tables of relocation types).
_SIZES: Mapping[int, Mapping[int, int]] = {
    64: {0: 0, 1: 8, 2: 4, 4: 4, 10: 4, 11: 4, 24: 8},
    32: {0: 0, 1: 4, 2: 4, 4: 4},
}
_RELATIVE: Mapping[int, frozenset[int]] = {64: frozenset({2, 4, 24}), 32: frozenset({2, 4})}
_UNSIGNED_32 = 10  # R_X86_64_32, which a processor extends by zeros; 32S by the sign


def _relocate(linked: Linked, relocation: Relocation, region: Region, at: int, size: int) -> None:
    bits = linked.item.bits
    addend = relocation.addend
    if addend is None:
        # REL: the addend is in the place (psABI of i386).
        (addend,) = struct.unpack_from("<i", region.data, at)
    value = linked.symbols[relocation.symbol] + addend
    if relocation.type in _RELATIVE[bits]:
        # P of the psABIs' S + A - P.
        value -= region.address + at
    mask = (1 << 8 * size) - 1
    if bits == 64 and size == 4:
        # Arithmetic wraps at 64 bits; what fits is asked afterwards.
        value &= (1 << 64) - 1
        low, high = (0, 1 << 32) if relocation.type == _UNSIGNED_32 else (-(1 << 31), 1 << 31)
        if low and value >> 63:
            value -= 1 << 64  # an address in the top 2 GiB is a negative number, as a CPU extends it
        # R_X86_64_32S and PC32 must be what the processor makes of them when it extends the sign.
        if not low <= value < high:
            _overflow(linked, relocation, value)
    region.data[at : at + size] = (value & mask).to_bytes(size, "little")


def _overflow(linked: Linked, relocation: Relocation, value: int) -> NoReturn:
    name = linked.item.symbols[relocation.symbol].name
    raise linked.item.error(f"{name}: {value:#x} does not fit into 32 bits", relocation.field, errno.EOVERFLOW)
