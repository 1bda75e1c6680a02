"""Structures by their BTF type information, which a stripped kernel keeps (Documentation/bpf/btf.rst).

Only what it takes to lay out one structure is read: names, members, offsets, the structures inside it, and the C types
of members that point to functions.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvops_core.images.model import KernelImage

SECTION: Final = ".BTF"
MAGIC: Final = 0xEB9F
NAME_LIMIT: Final = 512
TYPE_LIMIT: Final = 1 << 19
"""Most types read; a distribution kernel has some 100,000."""

MEMBER_LIMIT: Final = 2048
"""Members looked at, those of structures inside included; a hostile file may nest a structure in itself."""

DEPTH_LIMIT: Final = 16
"""Types followed for one C type: a hostile file may make a pointer to itself."""

# BTF_KIND_ numbers (linux/btf.h).
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF, _PROTO, _ENUM64 = 1, 2, 3, 4, 5, 6, 7, 8, 13, 19
_QUALIFIERS: Final = {9: "volatile ", 10: "const ", 11: "", 18: ""}
_TAGS: Final = {_STRUCT: "struct ", _UNION: "union ", _ENUM: "enum ", _FWD: "struct ", _ENUM64: "enum "}
_COMPILERS: Final = {
    "long unsigned int": "unsigned long",
    "long int": "long",
    "long long unsigned int": "unsigned long long",
    "long long int": "long long",
    "_Bool": "bool",
}
"""Integers as compilers name them, and as kernel headers do."""

_WORD, _HEADER = 4, 3
# Words of each type: fixed, its header among them, and for each of its vlen members.
_TAIL: Final = {
    1: (4, 0),  # INT
    2: (3, 0),  # PTR
    3: (6, 0),  # ARRAY
    4: (3, 3),  # STRUCT
    5: (3, 3),  # UNION
    6: (3, 2),  # ENUM
    7: (3, 0),  # FWD
    8: (3, 0),  # TYPEDEF
    9: (3, 0),  # VOLATILE
    10: (3, 0),  # CONST
    11: (3, 0),  # RESTRICT
    12: (3, 0),  # FUNC
    13: (3, 2),  # FUNC_PROTO
    14: (4, 0),  # VAR
    15: (3, 3),  # DATASEC
    16: (3, 0),  # FLOAT
    17: (4, 0),  # DECL_TAG
    18: (3, 0),  # TYPE_TAG
    19: (3, 3),  # ENUM64
}


@attrs.frozen
class Leaf:
    """A member of a structure that is no structure itself.

    Attributes:
        path: its name, behind those of the members that hold it.
        holder: name of the structure that it is a member of.
        offset: its place in the outermost structure, in bits.
        type: number of its type.
    """

    path: str
    holder: str
    offset: int
    type: int


@attrs.frozen(eq=False)
class Btf:
    """The type section of a kernel.

    Attributes:
        data: its bytes.
        types: offset in ``data`` of each type, by its number; number 0 is void.
        strings: offset of the string table, and of its end.
    """

    data: bytes = attrs.field(repr=False)
    types: list[int] = attrs.field(repr=False)
    strings: tuple[int, int]

    def name(self, offset: int) -> str:
        """A string by its offset in the table; empty where there is none."""
        start, end = self.strings[0] + offset, self.strings[1]
        stop = self.data.find(b"\0", start, min(end, start + NAME_LIMIT)) if start < end else -1
        return self.data[start:stop].decode("ascii", "replace") if stop >= 0 else ""

    def leaves(self, name: str) -> list[Leaf] | None:
        """The members of a structure that are no structures themselves; those of unions without a name are its own.

        Args:
            name: of the structure, without ``struct``.

        Returns:
            The members in order; None if there is no such structure, or it has more than :data:`MEMBER_LIMIT`.
        """
        start = self.strings[0]
        # A string and its NUL on both sides: so no other name's tail.
        wanted = self.data.find(b"\0" + name.encode() + b"\0", start, self.strings[1])
        key = struct.pack("<I", wanted + 1 - start) if wanted >= 0 else b""
        for at in self._begins(key) if key else ():
            if self._is_struct(at):
                return self._leaves(at)
        return None

    def _begins(self, key: bytes) -> Iterator[int]:
        """Where types begin with these bytes."""
        # A type begins with its name's offset, so that word is searched for, and most hits are chance.
        at = self.data.find(key, 1, self.strings[0])
        while at >= 0:
            number = bisect_left(self.types, at)
            if number < len(self.types) and self.types[number] == at:
                yield at
            at = self.data.find(key, at + 1, self.strings[0])

    def _is_struct(self, at: int) -> bool:
        return self._kind(at) == _STRUCT

    def _kind(self, at: int) -> int:
        return self.data[at + 7] & 0x1F

    def prototype(self, type: int) -> list[int] | None:
        """The types, by number, of the result and then of the arguments of a function that a type points to.

        Args:
            type: number of the type, of a pointer to a function.

        Returns:
            The numbers; None if it is no such pointer.
        """
        at = self._at(type)
        # A pointer to a function's type: BTF_KIND_FUNC_PROTO has vlen of two words each.
        at = self._at(self._following(at)) if at and self._kind(at) == _PTR else 0
        if not at or self._kind(at) != _PROTO:
            return None
        count = int.from_bytes(self.data[at + 4 : at + 6], "little")
        arguments = struct.unpack_from(f"<{2 * count}I", self.data, at + 12)[1::2]
        return [self._following(at), *arguments]

    def elements(self, type: int) -> int:
        """Elements of an array (``struct btf_array``); 0 for a type that is none."""
        at = self._at(type)
        return int.from_bytes(self.data[at + 20 : at + 24], "little") if at and self._kind(at) == _ARRAY else 0

    def spelling(self, type: int) -> str | None:
        """A type as C spells it, ``const struct desc_ptr *``; None for one that is not there or does not end."""
        stars, qualifiers = "", ""
        # A chain of qualifiers, which a hostile file may close.
        for _ in range(DEPTH_LIMIT):
            at = self._at(type)
            kind = self._kind(at) if at else 0
            if kind == _PTR:
                # Read from outside in: what was before belongs behind.
                stars, qualifiers = "*" + qualifiers.rstrip() + stars, ""
            elif kind in _QUALIFIERS:
                qualifiers += _QUALIFIERS[kind]
            else:
                name = self._plain(type, at, kind)
                return None if name is None else f"{qualifiers}{name} {stars}".rstrip()
            type = self._following(at)
        return None

    def base(self, type: int) -> str | None:
        """The spelling of what typedefs and qualifiers lead to: an integer, an enumeration, a structure."""
        for _ in range(DEPTH_LIMIT):
            at = self._at(type)
            if not at or (self._kind(at) != _TYPEDEF and self._kind(at) not in _QUALIFIERS):
                return self.spelling(type)
            type = self._following(at)
        return None

    def _plain(self, type: int, at: int, kind: int) -> str | None:
        if type == 0:
            return "void"
        name = self.name(int.from_bytes(self.data[at : at + 4], "little")) if at else ""
        if not name or kind not in {_INT, _TYPEDEF, *_TAGS}:
            return None
        return _TAGS.get(kind, "") + _COMPILERS.get(name, name)

    def _at(self, type: int) -> int:
        return self.types[type] if type < len(self.types) else 0

    def _following(self, at: int) -> int:
        return int.from_bytes(self.data[at + 8 : at + 12], "little")

    def _leaves(self, outermost: int) -> list[Leaf] | None:
        leaves: list[Leaf] = []
        todo = self._members(outermost, "", 0)
        looked_at = len(todo)
        # Bounded by members looked at, for types may nest in themselves.
        while todo and looked_at <= MEMBER_LIMIT:
            path, holder, place, type_, named = todo.pop()
            inner = self._at(type_)
            # A union without a name has its members in the structure's own name space.
            if inner and (self._is_struct(inner) or (not named and self._kind(inner) == _UNION)):
                members = self._members(inner, path, place)
                looked_at += max(len(members), 1)
                todo += members
            else:
                leaves.append(Leaf(path, holder, place, type_))
        return None if todo else leaves

    def _members(self, at: int, path: str, base: int) -> list[tuple[str, str, int, int, bool]]:
        """Path, holder, bit offset and type of a structure's members, and whether they have names, the last first."""
        name, info = struct.unpack_from("<II", self.data, at)
        members = []
        for index in range(min(info & 0xFFFF, MEMBER_LIMIT + 1)):
            member, type_, offset = struct.unpack_from("<III", self.data, at + 12 + 12 * index)
            # With kind_flag the high byte is the width of a bit field.
            place = base + (offset & 0xFFFFFF if info >> 31 else offset)
            own = self.name(member)
            members.append((f"{path}.{own}".strip("."), self.name(name), place, type_, bool(own)))
        # Backwards, since they are taken from the end.
        return members[::-1]


def read_btf(image: KernelImage) -> Btf | None:
    """The type section of a kernel; None if it has none that can be read: it is of help, and never needed."""
    data = image.section_bytes(SECTION)
    # Header of 24 bytes (struct btf_header).
    if not data or len(data) < 24:
        return None
    magic, _version, _flags, header, type_at, type_size, string_at, string_size = struct.unpack_from("<HBBIIIII", data)
    start, strings = header + type_at, header + string_at
    end = start + type_size
    if magic != MAGIC or end > len(data) or strings + string_size > len(data):
        return None
    if start % _WORD or type_size % _WORD:
        return None  # the kernel's own reader refuses it too (btf_parse_type_sec)
    # Type 0 is void, and is in no file.
    types, words, at = [0], memoryview(data)[start:end].cast("I"), 0
    last = len(words) - _HEADER
    # The sizes of types differ, so they are walked once.
    while at <= last and len(types) <= TYPE_LIMIT:
        info = words[at + 1]
        tail = _TAIL.get(info >> 24 & 0x1F)
        if tail is None:
            return None
        types.append(start + _WORD * at)
        at += tail[0] + tail[1] * (info & 0xFFFF)
    # A rest means that some kind was misread.
    return Btf(data, types, (strings, strings + string_size)) if at == len(words) else None
