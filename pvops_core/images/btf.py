"""Structures by their BTF type information, which a stripped kernel keeps (Documentation/bpf/btf.rst).

Only what it takes to lay out one structure is read: names, members, offsets and the structures inside it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from pvops_core.images.model import KernelImage

SECTION: Final = ".BTF"
MAGIC: Final = 0xEB9F
NAME_LIMIT: Final = 512
TYPE_LIMIT: Final = 1 << 19
"""Most types read; a distribution kernel has some 100,000."""

MEMBER_LIMIT: Final = 2048
"""Members looked at, those of structures inside included; a hostile file may nest a structure in itself."""

_STRUCT: Final = 4
# Bytes behind the 12 of each type: fixed, and for each of its vlen members.
_TAIL: Final = {
    1: (4, 0),  # INT
    2: (0, 0),  # PTR
    3: (12, 0),  # ARRAY
    4: (0, 12),  # STRUCT
    5: (0, 12),  # UNION
    6: (0, 8),  # ENUM
    7: (0, 0),  # FWD
    8: (0, 0),  # TYPEDEF
    9: (0, 0),  # VOLATILE
    10: (0, 0),  # CONST
    11: (0, 0),  # RESTRICT
    12: (0, 0),  # FUNC
    13: (0, 8),  # FUNC_PROTO
    14: (4, 0),  # VAR
    15: (0, 12),  # DATASEC
    16: (0, 0),  # FLOAT
    17: (4, 0),  # DECL_TAG
    18: (0, 0),  # TYPE_TAG
    19: (0, 12),  # ENUM64
}


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

    def leaves(self, name: str) -> list[tuple[str, str, int]] | None:
        """The members of a structure that are no structures themselves: path, structure that holds it, bit offset.

        Args:
            name: of the structure, without ``struct``.

        Returns:
            The members in order; None if there is no such structure, or it has more than :data:`MEMBER_LIMIT`.
        """
        start = self.strings[0]
        wanted = self.data.find(b"\0" + name.encode() + b"\0", start, self.strings[1])
        key = struct.pack("<I", wanted + 1 - start) if wanted >= 0 else b""
        for at in self.types[1:] if key else ():
            if self.data[at : at + 4] == key and self._is_struct(at):
                return self._leaves(at)
        return None

    def _is_struct(self, at: int) -> bool:
        return self.data[at + 7] & 0x1F == _STRUCT

    def _leaves(self, outermost: int) -> list[tuple[str, str, int]] | None:
        leaves: list[tuple[str, str, int]] = []
        todo = self._members(outermost, "", 0)
        looked_at = len(todo)
        while todo and looked_at <= MEMBER_LIMIT:
            path, holder, place, type_ = todo.pop()
            inner = self.types[type_] if type_ < len(self.types) else 0
            if inner and self._is_struct(inner):
                members = self._members(inner, path, place)
                looked_at += max(len(members), 1)
                todo += members
            else:
                leaves.append((path, holder, place))
        return None if todo else leaves

    def _members(self, at: int, path: str, base: int) -> list[tuple[str, str, int, int]]:
        """Path, holder, bit offset and type of a structure's members, the last first."""
        name, info = struct.unpack_from("<II", self.data, at)
        members = []
        for index in range(min(info & 0xFFFF, MEMBER_LIMIT + 1)):
            member, type_, offset = struct.unpack_from("<III", self.data, at + 12 + 12 * index)
            # With kind_flag the high byte is the width of a bit field.
            place = base + (offset & 0xFFFFFF if info >> 31 else offset)
            members.append((f"{path}.{self.name(member)}".strip("."), self.name(name), place, type_))
        return members[::-1]


def read_btf(image: KernelImage) -> Btf | None:
    """The type section of a kernel; None if it has none that can be read: it is of help, and never needed."""
    data = image.section_bytes(SECTION)
    if not data or len(data) < 24:
        return None
    magic, _version, _flags, header, type_at, type_size, string_at, string_size = struct.unpack_from("<HBBIIIII", data)
    start, strings = header + type_at, header + string_at
    end = start + type_size
    if magic != MAGIC or end > len(data) or strings + string_size > len(data):
        return None
    types = [0]
    at = start
    while at + 12 <= end and len(types) <= TYPE_LIMIT:
        info = int.from_bytes(data[at + 4 : at + 8], "little")
        tail = _TAIL.get(info >> 24 & 0x1F)
        if tail is None:
            return None
        types.append(at)
        at += 12 + tail[0] + tail[1] * (info & 0xFFFF)
    return Btf(data, types, (strings, strings + string_size)) if at == end else None
