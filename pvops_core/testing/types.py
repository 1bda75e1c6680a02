"""BTF type sections written in memory, as pahole writes them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.ops.model import Convention

if TYPE_CHECKING:
    from pvops_core.ops import CType, Layout, Op, Slot

INT, PTR, ARRAY, STRUCT, UNION, ENUM, TYPEDEF, CONST, PROTO = 1, 2, 3, 4, 5, 6, 8, 10, 13

_COMPILERS: Final = {
    "unsigned long": ("long unsigned int", 8),
    "long": ("long int", 8),
    "unsigned int": ("unsigned int", 4),
    "int": ("int", 4),
    "bool": ("_Bool", 1),
}
"""Integers, as compilers name them, and their bytes; all else that the catalogue names is a typedef."""


@attrs.define
class Types:
    """A type section under construction.

    Attributes:
        strings: the string table so far.
        body: the types so far.
        count: how many there are.
    """

    strings: bytes = b"\0"
    body: bytes = b""
    count: int = 0
    _made: dict[str, int] = attrs.field(factory=dict, init=False)

    def text(self, name: str) -> int:
        """Offset of a string, which is there once: pahole shares them."""
        text = b"\0" + name.encode() + b"\0"
        if name and text not in self.strings:
            self.strings += text[1:]
        return self.strings.index(text) + 1 if name else 0

    def add(self, kind: int, name: str, value: int, *, length: int = 0, tail: bytes = b"") -> int:
        """Add a type and give its number."""
        # struct btf_type: vlen is in bits 0 to 15 of info, kind in bits 24 to 28.
        self.body += struct.pack("<III", self.text(name), kind << 24 | length, value) + tail
        self.count += 1
        return self.count

    def struct(self, name: str, members: Sequence[tuple[str, int, int]], size: int, kind: int = STRUCT) -> int:
        """Add a structure, or a union, of name, type and bit offset of each member."""
        tail = b"".join(struct.pack("<III", self.text(member), type_, bits) for member, type_, bits in members)
        return self.add(kind, name, size, length=len(members), tail=tail)

    def build(self) -> bytes:
        """The section."""
        # struct btf_header: magic, version, flags, its own length, then both parts (Documentation/bpf/btf.rst).
        header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.body), len(self.body), len(self.strings))
        return header + self.body + self.strings

    def ctype(self, ctype: CType | None) -> int:
        """Add a type by its C name, once, with what it leads to; None is void."""
        return self._named(ctype.name) if ctype is not None else 0

    def _named(self, name: str) -> int:
        if name == "void":
            return 0
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> int:
        if name.endswith("*"):
            return self.add(PTR, "", self._named(name.removesuffix("*").rstrip()))
        if name.startswith("const "):
            return self.add(CONST, "", self._named(name.removeprefix("const ")))
        if name.startswith("struct "):
            return self.struct(name.removeprefix("struct "), [], 0)
        if name in _COMPILERS:
            spelled, size = _COMPILERS[name]
            return self.add(INT, spelled, size, tail=bytes(4))
        return self.add(TYPEDEF, name, self._named("unsigned long"))

    def function(self, op: Op) -> int:
        """Add a pointer to a function with an op's prototype."""
        numbers = [self.ctype(arg.ctype) for arg in op.args]
        tail = b"".join(struct.pack("<II", 0, number) for number in numbers)
        return self.add(PTR, "", self.add(PROTO, "", self.ctype(op.result), length=len(numbers), tail=tail))


def template_types(layout: Layout) -> bytes:
    """The type section of a kernel with this layout: a structure for each of its tables, and prototypes."""
    types = Types()
    for symbol, slots in groupby(layout.slots, key=lambda slot: slot.symbol):
        members = [(slot.path, slot) for slot in slots]
        if symbol == "pv_ops":
            _structure(types, "paravirt_patch_template", members, layout.pointer_size)
        else:
            group = symbol.removeprefix("pv_ops_")
            below = [(path.removeprefix(f"{group}."), slot) for path, slot in members]
            _structure(types, f"pv_{group}_ops", below, layout.pointer_size)
    return types.build()


def _structure(types: Types, name: str, members: Iterable[tuple[str, Slot]], size: int) -> tuple[int, int]:
    """Number and bytes of a structure whose members are slots, or structures where their paths have dots."""
    made: list[tuple[str, int, int]] = []
    at = 0
    for head, inside in groupby(members, key=lambda member: member[0].partition(".")[0]):
        below = [(path.partition(".")[2], slot) for path, slot in inside]
        if below[0][0]:
            number, length = _structure(types, f"pv_{head}_ops", below, size)
        else:
            number, length = _slot(types, below[0][1], size), size
        made.append((head, number, 8 * at))
        at += length
    return types.struct(name, made, at), at


def _slot(types: Types, slot: Slot, size: int) -> int:
    if slot.op.convention is not Convention.CALLEE_SAVE:
        return types.function(slot.op)
    return types.struct("paravirt_callee_save", [("func", types.add(PTR, "", 0), 0)], size)
