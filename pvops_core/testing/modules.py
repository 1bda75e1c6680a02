"""A small module of a kernel, written in memory: calls of ops that its kernel will patch when it loads it."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.guest.types.ctypes import CTypes
from pvops_core.images.elfwriter import (
    ALLOC,
    EXEC,
    NOBITS,
    PROGBITS,
    RELA,
    RELOCATABLE,
    STRTAB,
    SYMTAB,
    WRITE,
    ElfSection,
    elf_file,
)
from pvops_core.patching.altinstructions.alternatives import ALWAYS, FEATURES
from pvops_core.patching.altinstructions.altrecords import FLAG_DIRECT_CALL, FLAG_NOT, INVERTED

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.ops import Layout

PC32: Final = 2
"""R_X86_64_PC32."""

ABSOLUTE: Final = 1
"""R_X86_64_64."""

NAME: Final = b"small"

SITE: Final = 8
"""Bytes from one site to the next."""


@attrs.define
class SmallModule:
    """What to build: a 64-bit module whose sites are functions, for each is followed by a ret.

    How they are annotated is the layout's: ``.parainstructions`` where that has records, else direct calls.

    Attributes:
        layout: layout of its kernel's tables.
        types: type number of each site.
        release: of the kernel that it is for.
        machine: ``e_machine``.
        inlined: number of a site to the code that it has where the CPU has not got the feature XENPV.
        loadable: the kernel that it can be loaded into, which says how its ``struct module`` is laid out; it then
            calls nobody.
    """

    layout: Layout
    types: Sequence[int] = ()
    release: str = ""
    machine: int = 62
    inlined: Mapping[int, bytes] = attrs.field(factory=dict)
    loadable: KernelImage | None = None

    def build(self) -> bytes:
        """The file."""
        tables = list(dict.fromkeys(slot.symbol for slot in self.layout.slots))
        # Symbols: nothing, the sections .text and .altinstr_replacement, the tables, BUG_func, a function, a stranger.
        direct = not self.layout.record_size
        names = ["", "", "", *tables, *(["BUG_func"] if direct else []), "own_function"]
        text = b"".join(b"\xff\x15\0\0\0\0\xc3".ljust(SITE, b"\xcc") for _ in self.types)
        # 4 less: R_X86_64_PC32 counts from the field, and RIP from behind it (System V ABI for AMD64, 4.4).
        calls = [
            (SITE * index + 2, 3 + tables.index(slot.symbol), slot.offset - 4)
            for index, slot in enumerate(self.layout.by_type(number) for number in self.types)
        ]
        if self.loadable is None:
            calls.append((len(text) + 1, len(names), -4))
            names, text = [*names, "of_another_module"], text + b"\xe8\0\0\0\0"
        records, code, places, replaced = b"", b"", [], []
        for index in range(len(self.types)):
            entries: list[tuple[int, int, bytes]] = []
            if direct:
                entries.append((ALWAYS, FLAG_DIRECT_CALL, b"\xe8\0\0\0\0"))
                replaced.append((len(code) + 1, names.index("BUG_func"), -4))
            if index in self.inlined:
                entries.append((FEATURES["XENPV"], FLAG_NOT, self.inlined[index]))
            for feature, flags, replacement in entries:
                places += [(len(records), 1, SITE * index), (len(records) + 4, 2, len(code))]
                records += _record(feature, flags, len(replacement), direct=direct)
                code += replacement
        version = f"vermagic={self.release} SMP\0" if self.release else ""  # without one a kernel loads it by force
        parts = [
            ElfSection(".text", PROGBITS, ALLOC | EXEC, text),
            ElfSection(".altinstr_replacement", PROGBITS, ALLOC | EXEC, code),
            ElfSection(".altinstructions", PROGBITS, ALLOC, records),
            ElfSection(".modinfo", PROGBITS, ALLOC, f"license=GPL\0{version}".encode()),
            ElfSection(".bss", NOBITS, ALLOC | WRITE, bytes(64)),
            *self._relocations(calls, replaced, places),
            self._symbols(names),
            ElfSection(".strtab", STRTAB, 0, b"\0" + b"".join(name.encode() + b"\0" for name in names if name)),
            *([] if self.loadable is None else [self._this(self.loadable)]),
        ]
        if not direct:
            parts += self._annotated(len(parts) + 1)
        return elf_file(parts, bits=64, kind=RELOCATABLE, machine=self.machine)

    def _annotated(self, number: int) -> list[ElfSection]:
        """``.parainstructions`` as the section of a number, and its relocations."""
        data = b"".join(struct.pack("<QBB6x", 0, type_, 6) for type_ in self.types)
        places = (
            struct.pack("<QQq", index * self.layout.record_size, 1 << 32 | ABSOLUTE, SITE * index)
            for index in range(len(self.types))
        )
        return [
            ElfSection(".parainstructions", PROGBITS, ALLOC, data),
            ElfSection(f".rela{number}", RELA, 0, b"".join(places), link=9, info=number, entry_size=24),
        ]

    def _this(self, kernel: KernelImage) -> ElfSection:
        """Its ``struct module``, which has no function to be called when it is loaded or unloaded."""
        assert kernel.types is not None
        types = CTypes(kernel.types, kernel.pointer_size)
        module = types.find("struct module")
        data, at = bytearray(types.size(module)), types.member(module, "name").offset // 8
        data[at : at + len(NAME)] = NAME
        return ElfSection(".gnu.linkonce.this_module", PROGBITS, ALLOC | WRITE, bytes(data))

    def _relocations(self, *targets: Sequence[tuple[int, int, int]]) -> list[ElfSection]:
        return [
            ElfSection(
                f".rela{number}",
                RELA,
                0,
                b"".join(struct.pack("<QQq", at, symbol << 32 | PC32, addend) for at, symbol, addend in entries),
                link=9,
                info=number,
                entry_size=24,
            )
            for number, entries in enumerate(targets, 1)
        ]

    def _symbols(self, names: Sequence[str]) -> ElfSection:
        table, at = b"", 1
        for number, name in enumerate(names):
            holder = number if number in {1, 2} else 1 if name == "own_function" else 0
            # STB_LOCAL and STT_SECTION, or STB_GLOBAL and STT_FUNC; sh_info is the first that is not local (ELF gABI).
            info = 3 if number in {1, 2} else 0x12
            table += struct.pack("<IBBHQQ", at if name else 0, info if number else 0, 0, holder, 0, 0)
            at += len(name) + 1 if name else 0
        return ElfSection(".symtab", SYMTAB, 0, table, link=10, info=3, entry_size=24)


def _record(feature: int, flags: int, length: int, *, direct: bool) -> bytes:
    """A ``struct alt_instr`` over a site, its two places still to be filled in: of 6.8, or of 6.1."""
    if direct:
        return struct.pack("<iiHHBB", 0, 0, feature, flags, 6, length)
    return struct.pack("<iiHBB", 0, 0, feature | (INVERTED if flags & FLAG_NOT else 0), 6, length)
