"""The symbols of a kernel: from ``.symtab`` or, where that has been stripped, from the kallsyms tables in its text."""

from __future__ import annotations

from itertools import compress
from operator import ne
from typing import TYPE_CHECKING, Final

import numpy as np

from pvops_core.images.kallsyms import SymbolColumns, read_kallsyms
from pvops_core.images.symboltable import SymbolTable

if TYPE_CHECKING:
    from pvops_core.images.model import KernelImage

SYMBOL_LIMIT: Final = 1 << 19
"""Most symbols read; a distribution kernel has some 150,000."""

NAME_LIMIT: Final = 512
"""Most bytes of a name; the kernel's own KSYM_NAME_LEN is 128, later 512."""

_STT_SECTION: Final = 3
_STT_FILE: Final = 4
_STB_LOCAL: Final = 0
SYM64: Final = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("shndx", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
SYM32: Final = np.dtype(
    [("name", "<u4"), ("value", "<u4"), ("size", "<u4"), ("info", "u1"), ("other", "u1"), ("shndx", "<u2")]
)


def build(source: str, symbols: SymbolColumns) -> SymbolTable:
    """A table of symbols."""
    # Backwards, so that the first of several comes last, and stays.
    names, places, exported = symbols.names[::-1], symbols.addresses[::-1], symbols.exported[::-1]
    by_name = dict(zip(names, places, strict=True))
    # Global ones last, so that they win.
    by_name.update(zip(compress(names, exported), compress(places, exported), strict=True))
    by_address = dict(zip(places, names, strict=True))
    addresses = sorted(by_address)
    others: dict[str, set[int]] = {}
    hidden = list(map(ne, map(by_name.__getitem__, names), places))
    # Only names whose place is not the one that won.
    for name, address in zip(compress(names, hidden), compress(places, hidden), strict=True):
        others.setdefault(name, {by_name[name]}).add(address)
    shared = {name: tuple(sorted(places)) for name, places in others.items()}
    return SymbolTable(source, by_name, shared, addresses, list(map(by_address.__getitem__, addresses)))


def read_symbols(image: KernelImage) -> SymbolTable:
    """Read the symbols of an image; an empty table if it has none.

    Raises:
        ImageError: ``.symtab`` or kallsyms is there and is damaged.
    """
    return build(*read_columns(image))


def read_columns(image: KernelImage) -> tuple[str, SymbolColumns]:
    """The symbols of an image as its table has them, and what that is called; empty if it has none.

    Raises:
        ImageError: ``.symtab`` or kallsyms is there and is damaged.
    """
    section = next((section for section in image.sections if section.kind == "SHT_SYMTAB"), None)
    # .symtab first: kallsyms has no data without KALLSYMS_ALL.
    if section is not None and section.size:
        return ".symtab", _symtab(image, section.index)
    found = read_kallsyms(image)
    if found is not None:
        return "kallsyms", found
    return "", SymbolColumns([], [], [])


def _symtab(image: KernelImage, index: int) -> SymbolColumns:
    section = image.sections[index]
    field = f"section[{index}] {section.name}"
    if section.link >= len(image.sections) or image.sections[section.link].kind != "SHT_STRTAB":
        raise image.error(f"sh_link {section.link} is no string table", field=field, offset=section.offset)
    record = SYM64 if image.pointer_size == 8 else SYM32
    count = section.size // record.itemsize
    if count > SYMBOL_LIMIT:
        raise image.error(f"{count} symbols; the most read is {SYMBOL_LIMIT}", field=field, offset=section.offset)
    table = np.frombuffer(image.data, record, count, section.offset)
    kind = table["info"] & 0xF
    # Sections and files are no symbols that anybody asks for.
    table = table[(table["shndx"] != 0) & (table["name"] != 0) & (kind != _STT_SECTION) & (kind != _STT_FILE)]
    strings = image.sections[section.link]
    end = strings.offset + strings.size
    is_global = (table["info"] >> 4) != _STB_LOCAL
    names = []
    for name in table["name"].tolist():
        start = strings.offset + name
        stop = image.data.find(b"\0", start, min(end, start + NAME_LIMIT)) if start < end else -1
        if stop < 0:
            raise image.error(f"name {name:#x} does not end in the string table", field=field, offset=section.offset)
        names.append(image.data[start:stop].decode("utf-8", "replace"))
    return SymbolColumns(names, table["value"].tolist(), is_global.tolist())
