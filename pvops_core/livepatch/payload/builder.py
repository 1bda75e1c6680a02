"""Makes payload files without a compiler: machine code and data by hand, everything else by name."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

from pvops_core.livepatch.payload.contents import BUILD_ID, DEPENDS, EX_TABLE, FUNC, FUNCS, HOOKS, HOST_DEPENDS, MODINFO
from pvops_core.livepatch.payload.model import OPAQUE_SIZE, PAYLOAD_VERSION, HookPhase
from pvops_core.livepatch.payload.objects import SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE

if TYPE_CHECKING:
    from pvops_core.kinds import MachineKind

TEXT, DATA, RODATA = SHF_ALLOC | SHF_EXECINSTR, SHF_ALLOC | SHF_WRITE, SHF_ALLOC
# gABI: SHT_, STB_ and STT_ numbers.
_PROGBITS, _SYMTAB, _STRTAB, _RELA, _NOBITS, _REL = 1, 2, 3, 4, 8, 9
_GLOBAL, _FUNC, _OBJECT = 1 << 4, 2, 1
ABSOLUTE = {64: 1, 32: 1}
"""R_X86_64_64 and R_386_32: an address as wide as a pointer."""
RELATIVE = {64: 2, 32: 2}
"""R_X86_64_PC32 and R_386_PC32."""


@attrs.frozen
class Reference:
    """A place that holds another symbol's address.

    Attributes:
        offset: in its section.
        symbol: the symbol.
        type: relocation type.
        addend: added to it.
    """

    offset: int
    symbol: str
    type: int
    addend: int = 0


@attrs.define
class PayloadSection:
    """One section being made; all may be changed until the file is, to make files that are wrong."""

    name: str
    flags: int
    kind: int = _PROGBITS
    align: int = 8
    data: bytearray = attrs.field(factory=bytearray)
    references: list[Reference] = attrs.field(factory=list)
    size: int | None = None
    """What the header says; the size of the data if None."""


@attrs.frozen
class _Symbol:
    name: str
    section: str
    value: int
    size: int
    type: int


class PayloadBuilder:
    """A payload file being made.

    Args:
        kind: the machine of the guest.
        build_id: the payload's own.
        depends: the build-id of what it is to be applied on.
        host: the guest's build-id.
    """

    def __init__(self, kind: MachineKind, *, build_id: bytes, depends: bytes, host: bytes) -> None:
        self.bits = kind.bits
        self.sections: dict[str, PayloadSection] = {}
        self.symbols: list[_Symbol] = []
        # check_patching_sections() wants all three.
        for name, value in ((BUILD_ID, build_id), (DEPENDS, depends), (HOST_DEPENDS, host)):
            self.section(name, RODATA, align=4).data += note(value)

    def section(self, name: str, flags: int, *, align: int = 8) -> PayloadSection:
        """The section of a name, made if there is none."""
        return self.sections.setdefault(name, PayloadSection(name, flags, align=align))

    def text(self, name: str, code: bytes, references: Iterable[Reference] = ()) -> None:
        """Add a function: its code and what in it refers to symbols (offsets from its first byte)."""
        self._define(self.section(".text", TEXT, align=16), name, code, references, _FUNC)

    def data(self, name: str, data: bytes, references: Iterable[Reference] = (), *, writable: bool = True) -> None:
        """Add a variable or a constant."""
        section = self.section(".data", DATA) if writable else self.section(".rodata", RODATA)
        self._define(section, name, data, references, _OBJECT)

    def _define(
        self, section: PayloadSection, name: str, data: bytes, references: Iterable[Reference], type: int
    ) -> None:
        # 16: what compilers align functions to, and no less than any datum needs.
        section.data += bytes(-len(section.data) % 16)
        start = len(section.data)
        section.data += data
        section.references += (attrs.evolve(each, offset=each.offset + start) for each in references)
        self.symbols.append(_Symbol(name, section.name, start, len(data), type))

    def _size_of(self, symbol: str) -> int:
        return next((each.size for each in self.symbols if each.name == symbol), 0)

    def replace(
        self,
        old: str,
        new: str | None,
        *,
        old_size: int,
        new_size: int | None = None,
        old_address: int = 0,
        version: int = PAYLOAD_VERSION,
        expected: bytes | None = None,
    ) -> None:
        """Add an entry of ``.livepatch.funcs``.

        Args:
            old: the function to replace.
            new: what replaces it; None for nops.
            old_size: its bytes.
            new_size: bytes of the new function, or of nops; what there is of the symbol if None.
            old_address: where it is; looked up by name if 0.
            version: of the structure.
            expected: bytes that it must begin with.
        """
        section = self.section(FUNCS, DATA)
        start, pointer = len(section.data), self.bits // 8
        # .L: local to the file, so no symbol of the payload's.
        text = f".L.name{len(self.symbols)}"
        self.data(text, old.encode() + b"\0", writable=False)
        size = self._size_of(new or "") if new_size is None else new_size
        # Addresses are zero here: relocations fill them in, which 32-bit ones find in place.
        section.data += FUNC[self.bits].pack(0, 0, old_address, size, old_size, version, *_split(expectation(expected)))
        section.references.append(Reference(start, text, ABSOLUTE[self.bits]))
        if new is not None:
            section.references.append(Reference(start + pointer, new, ABSOLUTE[self.bits]))

    def hook(self, phase: HookPhase, symbol: str) -> None:
        """Add a function of the payload to the hooks of a phase."""
        section = self.section(HOOKS + phase.value, RODATA)
        section.references.append(Reference(len(section.data), symbol, ABSOLUTE[self.bits]))
        section.data += bytes(self.bits // 8)

    def fixup(self, function: str, fault: int, on: int) -> None:
        """An entry of ``.ex_table``: where ``function + fault`` faults, the guest goes on at ``function + on``."""
        section = self.section(EX_TABLE, RODATA, align=4)
        for offset in (fault, on):
            section.references.append(Reference(len(section.data), function, RELATIVE[self.bits], offset))
            section.data += bytes(4)

    def modinfo(self, **values: str) -> None:
        """Add metadata."""
        section = self.section(MODINFO, RODATA, align=1)
        for key, value in values.items():
            section.data += f"{key}={value}".encode() + b"\0"

    # The file ----------------------------------------------------------------------------------------------------

    def build(self) -> bytes:
        """The file."""
        sections = list(self.sections.values())
        names = [symbol.name for symbol in self.symbols]
        wanted = dict.fromkeys(each.symbol for section in sections for each in section.references)
        undefined = [name for name in wanted if name not in names]
        # Undefined symbols must be in the table, for relocations name symbols by number.
        order = {name: number for number, name in enumerate((*names, *undefined), 1)}
        number_of = {section.name: number for number, section in enumerate(sections, 1)}
        # The first symbol is the null one (gABI).
        strings, table = bytearray(b"\0"), bytearray(self._symbol(0, 0, 0, 0, 0))
        for symbol in self.symbols:
            table += self._symbol(
                len(strings), _GLOBAL | symbol.type, number_of[symbol.section], symbol.value, symbol.size
            )
            strings += symbol.name.encode() + b"\0"
        for name in undefined:
            table += self._symbol(len(strings), _GLOBAL, 0, 0, 0)
            strings += name.encode() + b"\0"
        # Behind all sections proper.
        table_at = len(sections) + 1
        relocations = [
            self._relocations(section, number_of[section.name], table_at, order)
            for section in sections
            if section.references
        ]
        tables = [
            (PayloadSection(".symtab", 0, _SYMTAB, 8, table), table_at + 1, 1),
            (PayloadSection(".strtab", 0, _STRTAB, 1, strings), 0, 0),
        ]
        return self._file([*((section, 0, 0) for section in sections), *tables, *relocations])

    def _symbol(self, name: int, info: int, section: int, value: int, size: int) -> bytes:
        if self.bits == 64:
            return struct.pack("<IBBHQQ", name, info, 0, section, value, size)
        return struct.pack("<IIIBBH", name, value, size, info, 0, section)

    def _relocations(
        self, section: PayloadSection, number: int, table: int, order: dict[str, int]
    ) -> tuple[PayloadSection, int, int]:
        data = bytearray()
        for each in section.references:
            if self.bits == 64:
                # r_info: symbol in the high 32 bits, or in the high 24.
                data += struct.pack("<QQq", each.offset, order[each.symbol] << 32 | each.type, each.addend)
            else:
                data += struct.pack("<II", each.offset, order[each.symbol] << 8 | each.type)
                # REL keeps the addend in the place itself.
                struct.pack_into("<i", section.data, each.offset, each.addend)
        kind, prefix = (_RELA, ".rela") if self.bits == 64 else (_REL, ".rel")
        return PayloadSection(prefix + section.name, 0, kind, 8, data), table, number

    def _file(self, sections: list[tuple[PayloadSection, int, int]]) -> bytes:
        names = bytearray(b"\0")
        sections = [*sections, (PayloadSection(".shstrtab", 0, _STRTAB, 1, names), 0, 0)]
        starts = []
        for section, _, _ in sections:
            starts.append(len(names))
            names += section.name.encode() + b"\0"
        head = 64 if self.bits == 64 else 52
        body, offsets = bytearray(head), []
        for section, _, _ in sections:
            body += bytes(-len(body) % 16)
            offsets.append(len(body))
            body += section.data
        body += bytes(-len(body) % 16)
        table = len(body)
        # The null header.
        body += bytes(64 if self.bits == 64 else 40)
        for (section, link, info), name, offset in zip(sections, starts, offsets, strict=True):
            body += self._header(section, name, offset, link, info)
        # Last: only now is the header table's place known.
        body[:head] = self._elf(table, len(sections) + 1)
        return bytes(body)

    def _header(self, section: PayloadSection, name: int, offset: int, link: int, info: int) -> bytes:
        size = len(section.data) if section.size is None else section.size
        entry = {_SYMTAB: 24 if self.bits == 64 else 16, _RELA: 24, _REL: 8}.get(section.kind, 0)
        word = "Q" if self.bits == 64 else "I"
        places = (section.flags, 0, offset, size)
        return struct.pack(f"<II{word * 4}II{word * 2}", name, section.kind, *places, link, info, section.align, entry)

    def _elf(self, table: int, count: int) -> bytes:
        ident = b"\x7fELF" + bytes([self.bits // 32, 1, 1]) + bytes(9)
        machine, word = (62, "Q") if self.bits == 64 else (3, "I")
        head, entry = (64, 64) if self.bits == 64 else (52, 40)
        return ident + struct.pack(
            f"<HHI{word * 3}IHHHHHH", 1, machine, 1, 0, 0, table, 0, head, 0, 0, entry, count, count - 1
        )


def expectation(expected: bytes | None) -> bytes:
    """``struct livepatch_expectation``: bytes that must be there, or nothing that is looked at."""
    # One bit enabled, five of length, two reserved.
    return bytes([1 | len(expected) << 1 if expected else 0]) + (expected or b"").ljust(OPAQUE_SIZE, b"\0")


def _split(data: bytes) -> tuple[int, bytes]:
    return data[0], data[1:]


def note(build_id: bytes) -> bytes:
    """An ELF note with a GNU build-id."""
    # Sizes of owner and value, type, then both padded to words (gABI, "Note Section").
    return struct.pack("<III", 4, len(build_id), 3) + b"GNU\0" + build_id + bytes(-len(build_id) % 4)
