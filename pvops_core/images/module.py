"""A kernel module as it is once loaded: linked to its kernel, with all that is asked of a kernel to be asked of it.

What loading does to it (kernel/module/main.c, arch/x86/kernel/module.c): its sections get addresses, and its symbols
and the kernel's are put into the places that its relocations name. Then the kernel patches its text as it does its own.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import numpy as np

from pvops_core.errors import ImageError
from pvops_core.images.decompress import CompressionError, identify, unpack
from pvops_core.images.elf import is_module, read_headers
from pvops_core.images.kallsyms import SymbolColumns
from pvops_core.images.model import SHF_ALLOC, KernelImage, Section, Segment
from pvops_core.images.reading import read_file
from pvops_core.images.symbols import SYM32, SYM64, build
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pvops_core.images.btf import Btf
    from pvops_core.images.symboltable import SymbolTable

MODULES: Final = {"x86_64": 0xFFFFFFFFC0000000, "i386": 0xF8000000}
"""Where modules begin (MODULES_VADDR): on x86_64 with RANDOMIZE_BASE, as distributions build it; on i386 near it."""

UNPACKED_LIMIT: Final = 64 << 20
SYMBOL_LIMIT: Final = 1 << 18
RELOCATION_LIMIT: Final = 1 << 20
_ELF: Final = b"\x7fELF"

_RELA64: Final = np.dtype([("offset", "<u8"), ("info", "<u8"), ("addend", "<i8")])
_REL32: Final = np.dtype([("offset", "<u4"), ("info", "<u4")])

_KINDS: Final = {
    "x86_64": {1: (8, False), 2: (4, True), 4: (4, True), 10: (4, False), 11: (4, False), 24: (8, True)},
    "i386": {1: (4, False), 2: (4, True), 4: (4, True)},
}
"""Relocation types (R_X86_64_64, PC32, PLT32, 32, 32S, PC64; R_386_32, PC32, PLT32): bytes, and whether they count from
the place itself."""

_RESERVED: Final = 0xFF00
_ABSOLUTE: Final = 0xFFF1
_VERSION: Final = re.compile(rb"(?:^|\0)vermagic=([!-~]+)")


@attrs.frozen(slots=False, eq=False)
class LinkedModule(KernelImage):
    """A module as it is in the memory of a kernel that has not patched it yet: an image of the module's sections.

    Symbols, types and memory outside of the module are the kernel's.

    Attributes:
        kernel: its kernel.
        own: its own symbols: name, address, and whether it is global.
    """

    kernel: KernelImage = attrs.field(repr=False, kw_only=True)
    own: tuple[tuple[str, int, bool], ...] = attrs.field(repr=False, kw_only=True)

    @property
    def symbol_table(self) -> SymbolTable:
        """The kernel's symbols, and before them the module's own."""
        cached: SymbolTable | None = self.__dict__.get("_symbol_table")
        if cached is None:
            theirs = self.kernel.symbol_table
            names, addresses, exported = zip(*self.own, strict=True) if self.own else ((), (), ())
            columns = SymbolColumns(
                (*names, *theirs.names), (*addresses, *theirs.addresses), (*exported, *[False] * len(theirs.names))
            )
            built = build("module", columns)
            others = {name: at for name, at in theirs.by_name.items() if name not in built.by_name}
            cached = attrs.evolve(built, by_name={**built.by_name, **others})
            self.__dict__["_symbol_table"] = cached
        return cached

    @property
    def types(self) -> Btf | None:
        """The kernel's types: a module's add to those by number."""
        return self.kernel.types


def read_module(source: Path | bytes, name: str = "") -> tuple[bytes, str]:
    """The bytes of a module, packed or not, and what messages call it.

    Raises:
        ImageError: the file cannot be read or unpacked.
    """
    path = name or (str(source) if isinstance(source, Path) else "module")
    data = source if isinstance(source, bytes) else read_file(source, path)
    # Distributions pack modules by zstd, xz or gzip.
    if identify(data) is not None:
        try:
            data = unpack(data, UNPACKED_LIMIT, _ELF)
        except CompressionError as failure:
            raise ImageError(str(failure), path, 0, "module") from failure
    return data, path


def looks_like_module(path: Path) -> bool:
    """Whether a file is a module, packed or not; False for one that cannot be read, which others tell better."""
    try:
        return is_module(read_module(path)[0])
    except ImageError:
        return False


def link_module(
    source: Path | bytes, kernel: KernelImage, name: str = "", addresses: Mapping[str, int] | None = None
) -> LinkedModule:
    """Link a module to its kernel.

    Args:
        source: the module's file, packed or not, or its bytes.
        kernel: the kernel that it was built for.
        name: what messages call it; by default the path.
        addresses: of its sections by name, as /sys/module/NAME/sections tells them of a loaded one; the others, and
            by default all, lie where modules begin.

    Raises:
        ImageError: it is no module, is damaged, or is for another kernel.
    """
    data, path = read_module(source, name)
    headers = read_headers(data, path, module=True)
    found = _VERSION.search(data)
    release = found[1].decode("ascii") if found else ""
    # Checked by the kernel itself (same_magic()).
    if headers.machine != kernel.machine or (release and kernel.release and release != kernel.release):
        message = f"is for {headers.machine} {release}, and {kernel.path} is {kernel.machine} {kernel.release}"
        raise ImageError(message, path, field="vermagic")
    sections = _place(headers.sections, MODULES[kernel.machine], addresses or {})
    raw = bytearray(data)
    own = _Symbols.read(path, data, sections, kernel)
    for section in sections:
        if section.kind in {"SHT_RELA", "SHT_REL"}:
            _relocate(path, raw, sections, section, own)
    # The kernel's memory lies behind the module's in one piece of data, so that all is read in the same way.
    end = len(raw)
    segments = [
        Segment(section.address, 0, section.offset, section.size if section.in_file else 0, section.size, 7)
        for section in sections
        if section.flags & SHF_ALLOC and section.size
    ]
    segments += [attrs.evolve(segment, offset=segment.offset + end) for segment in kernel.segments]
    return LinkedModule(
        path=path,
        data=bytes(raw) + kernel.data,
        sha256=hashlib.sha256(data).hexdigest(),
        release=release,
        machine=headers.machine,
        entry=0,
        sections=sections,
        segments=tuple(segments),
        notes=kernel.notes,
        kernel=kernel,
        own=tuple(own.named),
    )


def _place(sections: tuple[Section, ...], base: int, given: Mapping[str, int]) -> tuple[Section, ...]:
    """The sections with addresses: those given, the others one behind the other on pages of their own, text first."""
    placed = list(sections)
    # Text first, where the kernel's loader puts it too.
    order = sorted((section for section in sections if section.flags & SHF_ALLOC), key=lambda it: not it.executable)
    at = base
    for section in order:
        placed[section.index] = attrs.evolve(section, address=given.get(section.name, at))
        # A page of its own each, for they get different rights.
        at += -(-max(section.size, 1) // PAGE) * PAGE
    return tuple(placed)


@attrs.frozen(eq=False)
class _Symbols:
    """A module's symbols by number.

    Attributes:
        values: their addresses.
        known: which of them have one.
        named: name, address and whether it is global, of its own.
        table: number of the section that they are in.
    """

    values: NDArray[np.uint64]
    known: NDArray[np.bool_]
    named: list[tuple[str, int, bool]]
    table: int

    @classmethod
    def read(cls, path: str, data: bytes, sections: tuple[Section, ...], kernel: KernelImage) -> _Symbols:
        section = next((section for section in sections if section.kind == "SHT_SYMTAB"), None)
        strings = sections[section.link] if section is not None and section.link < len(sections) else None
        if section is None or strings is None or strings.kind != "SHT_STRTAB":
            raise ImageError("has no symbol table", path, field="SHT_SYMTAB")
        record = SYM64 if kernel.pointer_size == 8 else SYM32
        count = section.size // record.itemsize
        if count > SYMBOL_LIMIT:
            raise ImageError(
                f"has {count} symbols; the most read is {SYMBOL_LIMIT}", path, section.offset, section.name
            )
        table = np.frombuffer(data, record, count, section.offset)
        names = data[strings.offset : strings.offset + strings.size]
        values, known, named = np.zeros(count, np.uint64), np.zeros(count, bool), []
        rows = zip(table["name"].tolist(), table["shndx"].tolist(), table["value"].tolist(), table["info"], strict=True)
        for number, (at, holder, value, info) in enumerate(rows):
            name = names[at : names.find(b"\0", at)].decode("ascii", "replace") if at else ""
            # SHN_UNDEF: the kernel's.
            if holder == 0:
                address = kernel.symbols.get(name)
            elif holder < _RESERVED:
                inside = holder < len(sections) and sections[holder].flags & SHF_ALLOC
                # A symbol of a section that is not loaded has no address.
                address = sections[holder].address + value if inside else None
                if name and address is not None:
                    named.append((name, address & ((1 << 64) - 1), bool(info >> 4)))
            else:
                address = value if holder == _ABSOLUTE else None
            if address is not None:
                values[number], known[number] = np.uint64(address & ((1 << 64) - 1)), True
        return cls(values, known, named, section.index)


def _relocate(path: str, raw: bytearray, sections: tuple[Section, ...], section: Section, symbols: _Symbols) -> None:
    """apply_relocate(): addresses into a section; those of symbols that another module would have stay as they are."""
    wide = section.kind == "SHT_RELA"
    record, kinds = (_RELA64, _KINDS["x86_64"]) if wide else (_REL32, _KINDS["i386"])
    target = sections[section.info] if section.info < len(sections) else None
    # Relocations for debug information stay undone.
    if target is None or not target.flags & SHF_ALLOC or not target.in_file or section.link != symbols.table:
        return
    count = section.size // record.itemsize
    if count > RELOCATION_LIMIT:
        raise ImageError(f"has {count} entries; the most is {RELOCATION_LIMIT}", path, section.offset, section.name)
    table = np.frombuffer(bytes(raw[section.offset : section.offset + count * record.itemsize]), record)
    shift, mask = (32, 0xFFFFFFFF) if wide else (8, 0xFF)
    addends = table["addend"].tolist() if wide else [None] * count
    rows = zip(table["offset"].tolist(), table["info"].tolist(), addends, strict=True)
    for index, (offset, info, addend) in enumerate(rows):
        number, kind = info >> shift, kinds.get(info & mask)
        if kind is None or number >= len(symbols.values):
            # Type 0 is none; others that are unknown would leave wrong addresses.
            if info & mask:
                message = f"is of type {info & mask} and symbol {number}, which are not known"
                raise ImageError(message, path, section.offset + index * record.itemsize, f"{section.name}[{index}]")
            continue
        size, relative = kind
        if offset + size > target.size:
            message = f"is for {offset:#x}, past the end of {target.name}"
            raise ImageError(message, path, section.offset + index * record.itemsize, f"{section.name}[{index}]")
        # Not known: another module's, which this one needs.
        if symbols.known[number]:
            place = slice(target.offset + offset, target.offset + offset + size)
            # REL has the addend in the place.
            extra = int.from_bytes(raw[place], "little", signed=True) if addend is None else addend
            value = int(symbols.values[number]) + extra - (target.address + offset if relative else 0)
            raw[place] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
