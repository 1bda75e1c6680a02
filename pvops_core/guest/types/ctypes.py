"""What a kernel's type information says of C types: kinds, sizes, members, elements (Documentation/bpf/btf.rst).

A damaged or hostile section ends in a StructureError: nothing is followed without a limit.
"""

from __future__ import annotations

import difflib
import enum
import struct
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Final

import attrs
import numpy as np

from pvops_core.errors import MemberError, StructureError

if TYPE_CHECKING:
    from pvops_core.images.btf import Btf

DEPTH_LIMIT: Final = 32
"""Types followed from one to what it is made of."""
MEMBER_LIMIT: Final = 4096
"""Members of one structure, those of its members without a name included."""


class TypeKind(enum.IntEnum):
    """Kinds of types that values have."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC_PROTO = 13
    VAR = 14
    TYPE_TAG = 18
    ENUM64 = 19
    OTHER = -1


ALIASES: Final = frozenset({TypeKind.TYPEDEF, TypeKind.VOLATILE, TypeKind.CONST, TypeKind.RESTRICT, TypeKind.TYPE_TAG})
COMPOUND: Final = frozenset({TypeKind.STRUCT, TypeKind.UNION})
_ENUMS: Final = frozenset({TypeKind.ENUM, TypeKind.ENUM64})
_TAGS: Final = {"struct": {TypeKind.STRUCT}, "union": {TypeKind.UNION}, "enum": _ENUMS}
_PLAIN: Final = frozenset(
    {TypeKind.STRUCT, TypeKind.UNION, TypeKind.ENUM, TypeKind.ENUM64, TypeKind.TYPEDEF, TypeKind.INT}
)
_SPELLED: Final = {
    "unsigned long": "long unsigned int",
    "long": "long int",
    "unsigned long long": "long long unsigned int",
    "long long": "long long int",
    "bool": "_Bool",
    "unsigned short": "short unsigned int",
    "short": "short int",
}
"""Integers as people write them, and as compilers name them."""
_SIGNED, _BOOL = 1, 4


@attrs.frozen
class Member:
    """A member of a structure or union.

    Attributes:
        name: its name.
        type: number of its type.
        offset: its place, in bits from the structure's beginning.
        width: bits of a bit field; 0 for any other member.
    """

    name: str
    type: int
    offset: int
    width: int


class CTypes:
    """The C types of a kernel, by number.

    Args:
        btf: its type information.
        pointer_size: bytes of a pointer.
    """

    def __init__(self, btf: Btf, pointer_size: int) -> None:
        self._btf = btf
        self.pointer_size = pointer_size
        self._members: dict[int, Mapping[str, Member]] = {}

    def kind(self, type: int) -> TypeKind:
        """What a type is."""
        at = self._at(type)
        try:
            # Info word: vlen in 16 bits, kind in bits 24 to 28, kind_flag in bit 31 (struct btf_type).
            return TypeKind(self._btf.data[at + 7] & 0x1F) if at else TypeKind.VOID
        except ValueError:
            return TypeKind.OTHER

    def resolved(self, type: int) -> int:
        """What typedefs and qualifiers lead to."""
        for _ in range(DEPTH_LIMIT):
            if self.kind(type) not in ALIASES:
                return type
            type = self.target(type)
        raise StructureError("does not end", type=self.spelling(type))

    def target(self, type: int) -> int:
        """What a pointer points to, or what a typedef, a qualifier or a variable is."""
        return self._word(type, 8)

    def element(self, type: int) -> tuple[int, int]:
        """Type and number of an array's elements."""
        return self._word(type, 12), self._word(type, 20)

    def signed(self, type: int) -> bool:
        """An integer, or an enumeration, has negative values."""
        if self.kind(type) is TypeKind.INT:
            # BTF_INT_ENCODING: bits 24 to 27.
            return bool(self._word(type, 12) >> 24 & _SIGNED)
        # kind_flag of an enumeration says that it is signed.
        return bool(self._word(type, 4) >> 31)

    def boolean(self, type: int) -> bool:
        """An integer is true or false."""
        return bool(self.kind(type) is TypeKind.INT and self._word(type, 12) >> 24 & _BOOL)

    def character(self, type: int) -> bool:
        """A type is C's plain ``char``, of which text is made."""
        type = self.resolved(type)
        return self.kind(type) is TypeKind.INT and self._name(type) == "char"

    def size(self, type: int, depth: int = 0) -> int:
        """Bytes of a value; StructureError of a type that has no values, such as a function."""
        type = self.resolved(type)
        kind = self.kind(type)
        if kind in COMPOUND or kind in _ENUMS or kind is TypeKind.INT:
            return self._word(type, 8)
        if kind is TypeKind.PTR:
            return self.pointer_size
        if kind is TypeKind.ARRAY and depth < DEPTH_LIMIT:
            element, count = self.element(type)
            return count * self.size(element, depth + 1)
        raise StructureError("has no size that is known here", type=self.spelling(type))

    def enumerators(self, type: int) -> dict[int, str]:
        """Names by value, the first of each."""
        wide = self.kind(type) is TypeKind.ENUM64
        size, signed = (12 if wide else 8), self.signed(type)
        found: dict[int, str] = {}
        for at in self._entries(type, size):
            name, low = struct.unpack_from("<II", self._btf.data, at)
            value = low | int.from_bytes(self._btf.data[at + 8 : at + 12], "little") << 32 if wide else low
            bits = 64 if wide else 32
            # Two's complement of so many bits.
            found.setdefault(value - (value >> bits - 1 << bits) if signed else value, self._btf.name(name))
        return found

    def members(self, type: int) -> Mapping[str, Member]:
        """The members of a structure or union by name; those of members without a name are its own."""
        if type not in self._members:
            found: dict[str, Member] = {}
            for number, member in enumerate(self._flat(type, 0, 0)):
                if number >= MEMBER_LIMIT:
                    raise StructureError(f"has more than {MEMBER_LIMIT} members", type=self.spelling(type))
                # The first of two names: outer ones come before those of members without a name.
                found.setdefault(member.name, member)
            self._members[type] = found
        return self._members[type]

    def member(self, type: int, name: str) -> Member:
        """A member by its name; MemberError if there is none."""
        there = self.members(type)
        if name not in there:
            close = difflib.get_close_matches(name, there, n=3)
            guess = f" (did you mean {' or '.join(close)}?)" if close else ""
            raise MemberError(f"has no member {name!r}{guess}", type=self.spelling(type))
        return there[name]

    def find(self, text: str) -> int:
        """A type by its name, with or without ``struct``, ``union`` or ``enum``, and with any number of ``*`` behind.

        Raises:
            StructureError: there is none. Pointers are found where some type of the kernel's is one.
        """
        name, stars = text.rstrip("* "), text.count("*")
        tag, _, rest = name.partition(" ")
        wanted = _TAGS.get(tag, _PLAIN)
        name = rest if tag in _TAGS else _SPELLED.get(name, name)
        # BTF has a name once for each kind: struct foo, foo and enum foo are three types.
        found = [each for each in self._named(name) if self.kind(each) in wanted]
        if not found:
            raise StructureError("the kernel's type information has no such type", type=text)
        # A structure rather than a typedef of its name.
        number = next((each for each in found if self.kind(each) in COMPOUND), found[0])
        for _ in range(stars):
            number = self._pointer_to(number, text)
        return number

    def variable(self, name: str) -> int | None:
        """The type of a variable by its name; None where that is not told, as of most that are not per-CPU."""
        return next((self.target(each) for each in self._named(name) if self.kind(each) is TypeKind.VAR), None)

    def spelling(self, type: int) -> str:
        """A type as C spells it."""
        if self.kind(type) is TypeKind.ARRAY:
            element, count = self.element(type)
            return f"{self._btf.spelling(element) or 'array'} [{count}]"
        known = self._btf.spelling(type)
        if known is not None:
            return known
        words = {TypeKind.STRUCT: "struct", TypeKind.UNION: "union", TypeKind.ENUM: "enum", TypeKind.PTR: "void *"}
        return words.get(
            self.kind(type), "function" if self.kind(type) is TypeKind.FUNC_PROTO else "type without a name"
        )

    def _flat(self, type: int, base: int, depth: int) -> Iterator[Member]:
        if depth > DEPTH_LIMIT:
            raise StructureError("does not end", type=self.spelling(type))
        flagged = self._word(type, 4) >> 31
        for at in self._entries(type, 12):
            name, number, place = struct.unpack_from("<III", self._btf.data, at)
            # With kind_flag: width in the high byte, offset in the rest (BTF_MEMBER_BITFIELD_SIZE).
            width, place = (place >> 24, place & 0xFFFFFF) if flagged else (0, place)
            inner = self.resolved(number)
            # A member without a name is part of its structure (C11, 6.7.2.1).
            if not name and self.kind(inner) in COMPOUND:
                yield from self._flat(inner, base + place, depth + 1)
            elif name:
                yield self._field(self._btf.name(name), number, inner, base + place, width)

    def _field(self, name: str, type: int, inner: int, place: int, width: int) -> Member:
        """A member, whose integer may itself be of some bits only, as older compilers write bit fields."""
        if not width and self.kind(inner) is TypeKind.INT:
            encoding = self._word(inner, 12)
            if encoding & 0xFF != 8 * self._word(inner, 8):
                # BTF_INT_OFFSET and BTF_INT_BITS of compilers before kind_flag.
                return Member(name, type, place + (encoding >> 16 & 0xFF), encoding & 0xFF)
        return Member(name, type, place, width)

    def _entries(self, type: int, size: int) -> range:
        at = self._at(type)
        count = self._word(type, 4) & 0xFFFF
        return range(at + 12, at + 12 + size * count, size)

    def _at(self, type: int) -> int:
        types = self._btf.types
        if type >= len(types):
            raise StructureError(f"the type information has no type {type}", type=f"type {type}")
        return types[type]

    def _word(self, type: int, offset: int) -> int:
        at = self._at(type) + offset
        return int.from_bytes(self._btf.data[at : at + 4], "little")

    def _name(self, type: int) -> str:
        return self._btf.name(self._word(type, 0))

    @cached_property
    def _heads(self) -> np.ndarray[tuple[int, int], np.dtype[np.uint32]]:
        """The three words at the head of each type: name, info, and size or type."""
        bytes_ = np.frombuffer(self._btf.data, np.uint8)
        # All heads at once: a search by name is one comparison of columns.
        places = np.asarray(self._btf.types[1:], np.int64)[:, None] + np.arange(12)
        return np.ascontiguousarray(bytes_[places]).view("<u4")

    def _named(self, name: str) -> list[int]:
        start, end = self._btf.strings
        # A string's offset names it in all types.
        at = self._btf.data.find(b"\0" + name.encode() + b"\0", start, end) if name else -1
        return [] if at < 0 else [int(each) + 1 for each in np.nonzero(self._heads[:, 0] == at + 1 - start)[0]]

    def _pointer_to(self, type: int, text: str) -> int:
        heads = self._heads
        found = np.nonzero((heads[:, 1] >> 24 & 0x1F == TypeKind.PTR) & (heads[:, 2] == type))[0]
        if not len(found):
            raise StructureError("the kernel's type information has no such pointer", type=text)
        return int(found[0]) + 1
