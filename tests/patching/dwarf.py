"""The DWARF of a table of ops, written in memory: one unit, of the table's source, for either width."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from tests.patching.ages import ONE, Age

if TYPE_CHECKING:
    from pvops_core.testing.images import ElfBuilder

_NAME, _SIZE, _PLACE, _TYPE = 0x03, 0x0B, 0x38, 0x49
_STRING, _DATA1, _DATA2, _REF4, _BLOCK1 = 0x08, 0x0B, 0x05, 0x13, 0x0A
_PLUS = b"\x04\x23"
"""A block of four bytes: DW_OP_plus_uconst, and an offset in three."""
ABBREVIATIONS = {
    1: (0x11, True, ((_NAME, _STRING),)),  # compile_unit
    2: (0x13, True, ((_NAME, _STRING), (_SIZE, _DATA2))),  # structure_type
    3: (0x0D, False, ((_NAME, _STRING), (_TYPE, _REF4), (_PLACE, _DATA2))),  # member
    4: (0x0F, False, ((_SIZE, _DATA1),)),  # pointer_type
    5: (0x0D, False, ((_NAME, _STRING), (_TYPE, _REF4), (_PLACE, _BLOCK1))),  # member, before version 3
}
HEADER = 11


def describe(builder: ElfBuilder, age: Age, version: int = 4, source: str = "arch/x86/kernel/paravirt.c") -> None:
    """Add the sections for an age's structures."""
    size = age.bits // 8
    body = b"\x01" + source.encode() + b"\0"
    pointer = HEADER + len(body)
    body += b"\x04" + bytes([size])

    def define(name: str, members: list[tuple[str, int, int]]) -> int:
        """A structure of members, each with its type's place and its offset; gives the place of the structure."""
        nonlocal body
        place = HEADER + len(body)
        body += b"\x02" + name.encode() + b"\0" + struct.pack("<H", 0)
        for member, type_, offset in members:
            body += (b"\x05" if version < 3 else b"\x03") + member.encode() + b"\0" + struct.pack("<I", type_)
            wide = bytes([offset & 0x7F | 0x80, offset >> 7 & 0x7F | 0x80, offset >> 14])
            body += _PLUS + wide if version < 3 else struct.pack("<H", offset)
        body += b"\0"
        return place

    def nested(name: str, paths: list[str]) -> int:
        """The structure whose members have these paths; those with a dot are in structures of it."""
        members, offset = [], 0
        for member in dict.fromkeys(path.partition(".")[0] for path in paths):
            inner = [path.partition(".")[2] for path in paths if path.startswith(f"{member}.")]
            members.append((member, nested(f"{member}_type", inner) if inner else pointer, offset))
            offset += size * (len(inner) or 1)
        return define(name, members)

    paths = [
        path if group in ONE else f"{group}.{path}" for group, names in age.groups.items() for path in names.split()
    ]
    nested(
        "paravirt_ops" if "paravirt_ops" in age.groups else "paravirt_patch_template",
        [*paths, *([age.alone] if age.alone else [])],
    )
    body += b"\0"
    table = b""
    for code, (tag, children, attributes) in ABBREVIATIONS.items():
        table += bytes([code, tag, children]) + b"".join(bytes(pair) for pair in attributes) + b"\0\0"
    unit = struct.pack("<HIB", version, 0, size) + body
    builder.section(".debug_abbrev", table + b"\0", flags=0, address=0)
    builder.section(".debug_info", struct.pack("<I", len(unit)) + unit, flags=0, address=0)
