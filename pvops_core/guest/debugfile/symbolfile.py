"""The ELF file: a kernel's sections without their bytes, its symbols, and its frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import UsageError
from pvops_core.guest.debugfile.frames import debug_frame
from pvops_core.guest.debugfile.symboltab import Extent, tabulate
from pvops_core.guest.stacks.orc import read_orc
from pvops_core.images.elfwriter import (
    ALLOC,
    EXEC,
    EXECUTABLE,
    MACHINES,
    NOBITS,
    NOTE,
    PROGBITS,
    STRTAB,
    SYMTAB,
    WRITE,
    ElfSection,
    elf_file,
)
from pvops_core.images.model import Section
from pvops_core.images.symbols import SYM32, SYM64, read_columns

if TYPE_CHECKING:
    from pvops_core.images import KernelImage

_KEPT_FLAGS: Final = ALLOC | EXEC | WRITE
_PF_EXECUTE, _PF_WRITE = 1, 2


@attrs.frozen
class SymbolFile:
    """A file of symbols, and what is in it.

    Attributes:
        data: its bytes.
        source: what the symbols were read from: ``.symtab`` or ``kallsyms``.
        symbols: how many there are.
        functions: how many of them are functions.
        frames: ranges of text whose callers can be found; 0 of a kernel without ORC.
    """

    data: bytes = attrs.field(repr=False)
    source: str
    symbols: int
    functions: int
    frames: int


def symbol_file(image: KernelImage, offset: int = 0) -> SymbolFile | None:
    """A file of an image's symbols; None of one that has none.

    Args:
        image: the kernel.
        offset: how much further on it is than it was linked to be, as KASLR has it.

    Raises:
        ImageError: its symbols are damaged.
        UsageError: so far on it would not be in the address space.
    """
    source, columns = read_columns(image)
    if not columns.names:
        return None
    bits, sections = image.pointer_size * 8, _sections(image)
    top = (1 << bits) - 1  # damaged sections may reach past it
    extents = [Extent(each.address, min(each.address + each.size, top), each.executable) for each in sections]
    text = _first_moved(extents, offset, bits)
    symbols = tabulate(columns, extents, bits)
    orc = read_orc(image)
    frames, count = debug_frame(orc, symbols.spans(), offset) if orc is not None else (b"", 0)

    table = symbols.table.copy()
    table["value"][table["value"] >= text] += table["value"].dtype.type(offset & top)
    record = SYM64 if bits == 64 else SYM32
    made = [
        *(_without_bytes(image, each, offset if each.address >= text else 0) for each in sections),
        ElfSection(
            *(".symtab", SYMTAB, 0, bytes(record.itemsize) + table.tobytes()),
            link=len(sections) + 2,
            info=symbols.locals + 1,
            entry_size=record.itemsize,
        ),
        ElfSection(".strtab", STRTAB, 0, symbols.names),
        *([ElfSection(".debug_frame", PROGBITS, 0, frames)] if count else []),
    ]
    data = elf_file(made, bits=bits, kind=EXECUTABLE, machine=MACHINES[bits], entry=image.entry)
    return SymbolFile(data, source, len(table), symbols.functions, count)


def _sections(image: KernelImage) -> list[Section]:
    """The sections that are in memory; of an image without any, its segments."""
    found = [each for each in image.sections if each.flags & ALLOC and each.size]
    return sorted(found, key=lambda each: not each.in_file) or [
        Section(
            index=number,
            name=f"segment{number}",
            kind="SHT_PROGBITS",
            flags=ALLOC | (EXEC if each.flags & _PF_EXECUTE else 0) | (WRITE if each.flags & _PF_WRITE else 0),
            address=each.address,
            offset=each.offset,
            size=each.memory_size,
            link=0,
            entry_size=0,
        )
        for number, each in enumerate(image.segments)
    ]


def _without_bytes(image: KernelImage, section: Section, offset: int) -> ElfSection:
    """A section as debuggers want it; notes keep their bytes, for by a build ID debug information is found."""
    flags, address = section.flags & _KEPT_FLAGS, section.address + offset
    if section.kind == "SHT_NOTE":
        data = image.data[section.offset : section.offset + section.size]
        return ElfSection(section.name, NOTE, flags, data, address)
    return ElfSection(section.name, NOBITS, flags, b"", address, size=section.size)


def _first_moved(extents: list[Extent], offset: int, bits: int) -> int:
    """Where what is moved begins: what lies below the kernel's text, as per-CPU data may, is not."""
    text = min((each.start for each in extents if each.executable), default=0)
    top = max((each.end for each in extents), default=0)
    if offset and not (text + offset >= 0 and top + offset < 1 << bits):
        raise UsageError(f"--offset {offset:#x}: the kernel, from {text:#x} to {top:#x}, would leave the address space")
    return text
