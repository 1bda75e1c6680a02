"""Writes the sections of an ELF file, of either width: those of images and modules for tests, and of files of symbols.

Libraries that write such files do not make one from nothing (LIEF, elftools) or are under a licence that does not go
with ours (makeelf).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import attrs

RELOCATABLE: Final = 1
EXECUTABLE: Final = 2
MACHINES: Final = {64: 62, 32: 3}
"""e_machine of x86 by width."""

NULL: Final = 0
PROGBITS: Final = 1
SYMTAB: Final = 2
STRTAB: Final = 3
RELA: Final = 4
NOTE: Final = 7
NOBITS: Final = 8

WRITE: Final = 1
ALLOC: Final = 2
EXEC: Final = 4

HEADER_SIZE: Final = {64: 64, 32: 52}
SECTION_HEADER_SIZE: Final = {64: 64, 32: 40}


@attrs.define
class ElfSection:
    """A section header's fields (``Elf64_Shdr``) and the section's bytes; ``offset`` is known once it is written.

    ``size`` is that in memory of a section without bytes in the file.
    """

    name: str
    kind: int
    flags: int
    data: bytes
    address: int = 0
    offset: int = 0
    link: int = 0
    info: int = 0
    entry_size: int = 0
    size: int | None = None


def append_sections(body: bytearray, sections: Sequence[ElfSection], bits: int) -> tuple[int, int]:
    """Append sections, a null one before and one of their names behind them, then their headers.

    Returns:
        The headers' offset and how many there are; the last is that of the names.
    """
    every = [ElfSection("", NULL, 0, b""), *sections, ElfSection(".shstrtab", STRTAB, 0, b"")]
    names, starts = b"\0", []
    for section in every:
        starts.append(len(names) if section.name else 0)
        names += section.name.encode() + b"\0" if section.name else b""
    every[-1].data = names
    for section in every[1:]:
        body += bytes(-len(body) % 16)
        section.offset = len(body)
        body += b"" if section.kind == NOBITS else section.data
    body += bytes(-len(body) % 16)
    table = len(body)
    for section, start in zip(every, starts, strict=True):
        body += _header(section, start, bits)
    return table, len(every)


def identification(bits: int) -> bytes:
    """``e_ident`` of a little-endian file."""
    return b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)


def elf_file(sections: Sequence[ElfSection], *, bits: int, kind: int, machine: int, entry: int = 0) -> bytes:
    """A file that has sections and no segments.

    Args:
        sections: the sections, without those that :func:`append_sections` adds.
        bits: its width.
        kind: ``e_type``.
        machine: ``e_machine``.
        entry: ``e_entry``.
    """
    size, word = HEADER_SIZE[bits], "Q" if bits == 64 else "I"
    body = bytearray(size)
    table, count = append_sections(body, sections, bits)
    counts = (size, 0, 0, SECTION_HEADER_SIZE[bits], count, count - 1)
    body[:size] = identification(bits) + struct.pack(
        f"<HHI{word * 3}I6H", kind, machine, 1, entry, 0, table, 0, *counts
    )
    return bytes(body)


def _header(section: ElfSection, name: int, bits: int) -> bytes:
    word = "Q" if bits == 64 else "I"
    place = (
        section.flags,
        section.address,
        section.offset,
        len(section.data) if section.size is None else section.size,
    )
    tail = (section.link, section.info, 1 if section.kind != NULL else 0, section.entry_size)
    return struct.pack(f"<II{word * 4}II{word * 2}", name, section.kind, *place, *tail)
