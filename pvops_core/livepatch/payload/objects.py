"""Relocatable ELF objects: headers through pyelftools, symbols and relocations as they stand in their tables.

Everything that a file can get wrong ends in a PayloadError with file, offset, field and the errno that Xen's
livepatch_elf.c gives for it. What is read is bounded by the file's own size.
"""

from __future__ import annotations

import errno
import io
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.construct import ConstructError
from elftools.elf.structs import ELFStructs

from pvops_core.livepatch.errors import PayloadError

if TYPE_CHECKING:
    from pvops_core.kinds import MachineKind

SECTION_LIMIT = 1024
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
SHN_UNDEF, SHN_LORESERVE, SHN_ABS, SHN_COMMON = 0, 0xFF00, 0xFFF1, 0xFFF2
SHT_SYMTAB, SHT_RELA, SHT_NOBITS, SHT_REL = 2, 4, 8, 9
# ET_REL; machines by width.
_REL, _MACHINES = 1, {"EM_386": 32, "EM_X86_64": 64}
_SYMBOL = {64: struct.Struct("<IBBHQQ"), 32: struct.Struct("<IIIBBH")}
_RELA = {64: struct.Struct("<QQq"), 32: struct.Struct("<IIi")}
_PLAIN = {64: struct.Struct("<QQ"), 32: struct.Struct("<II")}
# What pyelftools and construct raise on damaged input.
_FAILURES = (ELFError, ConstructError, struct.error, ValueError, KeyError, IndexError, TypeError, AttributeError)


@attrs.frozen
class ObjectSection:
    """One section header and its bytes; those of a section that has none in the file are empty.

    ``kind`` is ``sh_type`` as a number, ``size`` what it takes in memory; all else is named as in the ELF header.
    """

    index: int
    name: str
    kind: int
    flags: int
    align: int
    offset: int
    size: int
    link: int
    info: int
    data: bytes = attrs.field(repr=False)

    @property
    def loaded(self) -> bool:
        """Whether it has a place in memory."""
        return bool(self.flags & SHF_ALLOC) and self.size > 0


@attrs.frozen
class ObjectSymbol:
    """One symbol: ``st_name`` resolved, ``st_value``, ``st_size``, ``st_shndx``, and the two halves of ``st_info``."""

    name: str
    value: int
    size: int
    section: int
    type: int
    bind: int


@attrs.frozen
class Relocation:
    """One relocation.

    Attributes:
        offset: in the section it is for.
        type: ``R_386_*`` or ``R_X86_64_*``.
        symbol: number of the symbol.
        addend: None where it is in the place itself.
        field: its name for messages.
    """

    offset: int
    type: int
    symbol: int
    addend: int | None
    field: str


@attrs.frozen
class RelocatableObject:
    """A relocatable object file (gABI, ET_REL).

    Attributes:
        path: the file as the caller named it.
        bits: 32 or 64.
        sections: all of them, the null section first.
        symbols: all of them, the null symbol first.
        relocations: by number of the section that they are for.
    """

    path: str
    bits: int
    sections: tuple[ObjectSection, ...]
    symbols: tuple[ObjectSymbol, ...]
    relocations: Mapping[int, tuple[Relocation, ...]]

    def section(self, name: str) -> ObjectSection | None:
        """The section of a name, the first if there are several."""
        return next((section for section in self.sections if section.name == name), None)

    def error(self, message: str, field: str, number: int = errno.EINVAL, offset: int | None = None) -> PayloadError:
        """An error that says where in this file."""
        return PayloadError(message, self.path, offset, field, number)


def read_object(data: bytes, path: str, kind: MachineKind) -> RelocatableObject:
    """livepatch_elf_load(): read and check a relocatable object for a machine.

    Args:
        data: the file.
        path: for the messages.
        kind: the machine that it must be for.

    Raises:
        PayloadError: EINVAL for a damaged file, EOPNOTSUPP for an ELF file of another kind.
    """
    return _Reading(data, path, kind.bits).read()


class _Reading:
    """One file being read."""

    def __init__(self, data: bytes, path: str, bits: int) -> None:
        self._data = data
        self._path = path
        self._bits = bits
        self._structs = ELFStructs(little_endian=True, elfclass=bits)
        self._structs.create_basic_structs()
        self._structs.create_advanced_structs()
        self._stream = io.BytesIO(data)

    def _error(self, message: str, field: str, offset: int | None = None, number: int = errno.EINVAL) -> PayloadError:
        return PayloadError(message, self._path, offset, field, number)

    def _parse(self, kind: Any, offset: int, field: str) -> Any:  # noqa: ANN401 - construct's containers are untyped
        try:
            return struct_parse(kind, self._stream, stream_pos=offset)
        except _FAILURES as failure:
            raise self._error(f"cannot be read: {failure or type(failure).__name__}", field, offset) from failure

    def read(self) -> RelocatableObject:
        """The whole object."""
        sections = self._sections(self._header())
        symbols = self._symbols(sections)
        return RelocatableObject(self._path, self._bits, sections, symbols, self._relocations(sections, len(symbols)))

    def _header(self) -> Any:  # noqa: ANN401 - see _parse
        data = self._data
        if data[:4] != b"\x7fELF":
            raise self._error(f"not an ELF payload (begins {data[:4].hex(' ')})", "e_ident", 0)
        # livepatch_elf_load() takes one class, byte order and version.
        for place, wanted, what in ((4, self._bits // 32, "EI_CLASS"), (5, 1, "EI_DATA"), (6, 1, "EI_VERSION")):
            if data[place : place + 1] != bytes([wanted]):
                found = data[place : place + 1].hex() or "missing"
                raise self._error(
                    f"is {found}; this guest takes {wanted:02x}", f"e_ident[{what}]", place, errno.EOPNOTSUPP
                )
        header = self._parse(self._structs.Elf_Ehdr, 0, "Elf_Ehdr")
        if header.e_type != "ET_REL":
            raise self._error(f"is {header.e_type}, not a relocatable object", "e_type", 16, errno.EOPNOTSUPP)
        if _MACHINES.get(str(header.e_machine)) != self._bits:
            raise self._error(f"is {header.e_machine}, not this guest's", "e_machine", 18, errno.EOPNOTSUPP)
        return header

    def _sections(self, header: Any) -> tuple[ObjectSection, ...]:  # noqa: ANN401 - see _parse
        count, step, start = header.e_shnum, header.e_shentsize, header.e_shoff
        # A bound, so that a damaged count cannot make a million sections.
        if not 0 < count <= SECTION_LIMIT:
            raise self._error(f"is {count}; a payload has 1 to {SECTION_LIMIT} sections", "e_shnum")
        # More is allowed: later versions may append fields (gABI).
        if step < self._structs.Elf_Shdr.sizeof():
            raise self._error(f"is {step}, less than a section header has", "e_shentsize")
        # All at once, instead of one error for each header.
        if start + count * step > len(self._data):
            raise self._error("section headers reach past the end of the file", "e_shoff", start)
        heads = [
            self._parse(self._structs.Elf_Shdr, start + index * step, f"section[{index}]") for index in range(count)
        ]
        if not 0 < header.e_shstrndx < count:
            raise self._error(f"is {header.e_shstrndx}; there are {count} sections", "e_shstrndx")
        strings = self._body(header.e_shstrndx, heads[header.e_shstrndx])
        return tuple(self._section(index, head, strings) for index, head in enumerate(heads))

    def _body(self, index: int, head: Any) -> bytes:  # noqa: ANN401 - see _parse
        # Their offset means nothing.
        if head.sh_type in {"SHT_NULL", "SHT_NOBITS"}:
            return b""
        if head.sh_offset + head.sh_size > len(self._data):
            message = f"{head.sh_size:#x} bytes at {head.sh_offset:#x} reach past the end of the file"
            raise self._error(message, f"section[{index}] sh_size", head.sh_offset)
        return self._data[head.sh_offset : head.sh_offset + head.sh_size]

    def _section(self, index: int, head: Any, strings: bytes) -> ObjectSection:  # noqa: ANN401 - see _parse
        align = head.sh_addralign
        # Above a page: pages are what is allocated.
        if align & align - 1 or align > 4096:
            raise self._error(f"is {align:#x}, not a power of two up to a page", f"section[{index}] sh_addralign")
        return ObjectSection(
            index=index,
            name=self._string(strings, head.sh_name, f"section[{index}] sh_name"),
            kind=_number(head.sh_type),
            flags=head.sh_flags,
            align=max(1, align),
            offset=head.sh_offset,
            # A null section's size may be the number of sections (gABI, e_shnum).
            size=0 if head.sh_type == "SHT_NULL" else head.sh_size,
            link=head.sh_link,
            info=head.sh_info,
            data=self._body(index, head),
        )

    def _string(self, strings: bytes, start: int, field: str) -> str:
        # An empty name needs no table.
        if start == 0 and not strings:
            return ""
        end = strings.find(b"\0", start)
        if start >= len(strings) or end < 0:
            raise self._error(f"name at {start:#x} is outside of a string table of {len(strings):#x} bytes", field)
        # Bounded: a table without NULs would be one long name.
        return strings[start : min(end, start + 512)].decode("utf-8", "replace")

    def _symbols(self, sections: tuple[ObjectSection, ...]) -> tuple[ObjectSymbol, ...]:
        tables = [section for section in sections if section.kind == SHT_SYMTAB]
        # Xen takes one; relocations would otherwise be ambiguous.
        if len(tables) != 1:
            raise self._error(f"there are {len(tables)} symbol tables, not one", ".symtab")
        table = tables[0]
        if not 0 < table.link < len(sections):
            raise self._error(f"names string table {table.link} of {len(sections)} sections", ".symtab sh_link")
        form = _SYMBOL[self._bits]
        if len(table.data) % form.size or not table.data:
            raise self._error(f"{len(table.data):#x} bytes hold no whole number of symbols", ".symtab", table.offset)
        strings = sections[table.link].data
        found = []
        for index, entry in enumerate(form.iter_unpack(table.data)):
            if self._bits == 64:
                name, info, _, section, value, size = entry
            else:
                name, value, size, info, _, section = entry
            where = f"symbol[{index}]"
            found.append(ObjectSymbol(self._string(strings, name, where), value, size, section, info & 15, info >> 4))
        return tuple(found)

    def _relocations(self, sections: tuple[ObjectSection, ...], symbols: int) -> Mapping[int, tuple[Relocation, ...]]:
        found: dict[int, tuple[Relocation, ...]] = {}
        for section in sections:
            if section.kind not in {SHT_RELA, SHT_REL}:
                continue
            where = f"section[{section.index}] {section.name}"
            if not 0 < section.info < len(sections):
                raise self._error(f"is for section {section.info} of {len(sections)}", f"{where} sh_info")
            if sections[section.link % len(sections)].kind != SHT_SYMTAB:
                raise self._error(f"section {section.link} is no symbol table", f"{where} sh_link")
            # Debug information: nobody is going to read it.
            if not sections[section.info].loaded:
                continue
            entries = self._entries(section, where, symbols)
            found[section.info] = (*found.get(section.info, ()), *entries)
        return found

    def _entries(self, section: ObjectSection, where: str, symbols: int) -> list[Relocation]:
        with_addend = section.kind == SHT_RELA
        # Each machine has one kind (psABIs).
        if with_addend != (self._bits == 64):
            raise self._error("relocations of the other kind", where, section.offset, errno.EOPNOTSUPP)
        form = (_RELA if with_addend else _PLAIN)[self._bits]
        if len(section.data) % form.size:
            raise self._error(f"{len(section.data):#x} bytes hold no whole number of relocations", where)
        found = []
        for index, (offset, info, *addend) in enumerate(form.iter_unpack(section.data)):
            shift = 32 if self._bits == 64 else 8
            symbol, kind, field = info >> shift, info & (1 << shift) - 1, f"{where}[{index}]"
            if symbol >= symbols:
                raise self._error(f"is for symbol {symbol} of {symbols}", field, section.offset + index * form.size)
            found.append(Relocation(offset, kind, symbol, addend[0] if addend else None, field))
        return found


def _number(kind: Any) -> int:  # noqa: ANN401 - pyelftools gives the name of what it knows, else the number
    known = {"SHT_SYMTAB": SHT_SYMTAB, "SHT_RELA": SHT_RELA, "SHT_NOBITS": SHT_NOBITS, "SHT_REL": SHT_REL}
    return kind if isinstance(kind, int) else known.get(str(kind), 1)
