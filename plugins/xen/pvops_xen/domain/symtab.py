"""BSD_SYMTAB: the kernel's symbol table, put behind it in memory (xen/common/libelf/libelf-loader.c).

The guest finds a length of 32 bits, then an ELF header with three section headers (none, symbols, their names), then
the two tables. Offsets count from the ELF header.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.images.model import Section

_SHT_SYMTAB, _SHT_STRTAB = 2, 3
_SYMBOLS, _NAMES, _SECTIONS = 1, 2, 3
_EHDR: Final = {64: struct.Struct("<24s3QI6H"), 32: struct.Struct("<24s3II6H")}
_SHDR: Final = {64: struct.Struct("<IIQQQQIIQQ"), 32: struct.Struct("<10I")}


def bsd_symtab(image: KernelImage) -> bytes:
    """What follows the kernel, after its end has been rounded up to a word; empty if the image has no symbols."""
    symbols = next((section for section in image.sections if section.kind == "SHT_SYMTAB"), None)
    if symbols is None or not 0 < symbols.link < len(image.sections):
        return b""
    names = image.sections[symbols.link]
    bits, word = 8 * image.pointer_size, image.pointer_size
    header, entry = _EHDR[bits], _SHDR[bits]
    # The tables are aligned in memory, where the header lies 4 bytes after a word's boundary.
    first = _up(4 + header.size + _SECTIONS * entry.size, word) - 4
    second = _up(4 + first + symbols.size, word) - 4
    size = second + names.size
    made = bytearray(_up(4 + size, word))
    struct.pack_into("<I", made, 0, size)
    counts = (header.size, 0, 0, entry.size, _SECTIONS, 0)
    header.pack_into(made, 4, image.data[:24], image.entry, 0, header.size, 0, *counts)
    headers = (
        _section(entry, _SHT_SYMTAB, symbols, first, _NAMES, word),
        _section(entry, _SHT_STRTAB, names, second, 0, 1),
    )
    at = 4 + header.size + entry.size
    made[at : at + 2 * entry.size] = b"".join(headers)
    for table, offset in ((symbols, first), (names, second)):
        made[4 + offset : 4 + offset + table.size] = image.data[table.offset : table.offset + table.size]
    return bytes(made)


def _up(size: int, word: int) -> int:
    return (size + word - 1) & -word


def _section(entry: struct.Struct, kind: int, table: Section, offset: int, link: int, align: int) -> bytes:
    return entry.pack(0, kind, 0, 0, offset, table.size, link, 0, align, table.entry_size)
