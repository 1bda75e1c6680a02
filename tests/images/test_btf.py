"""Type sections written here as pahole writes them."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import attrs
import pytest

from pvops_core.images import KernelImage, load_image
from pvops_core.images.btf import read_btf
from pvops_core.ops import LAYOUTS
from pvops_core.patching.derived import layout_from_types
from pvops_core.testing.images import ElfBuilder

if TYPE_CHECKING:
    from collections.abc import Callable

INT, PTR, ARRAY, STRUCT, ENUM, TYPEDEF, PROTO = 1, 2, 3, 4, 6, 8, 13


@attrs.define
class Types:
    """A type section under construction."""

    strings: bytes = b"\0"
    body: bytes = b""
    count: int = 0

    def text(self, name: str) -> int:
        # Each string is there once: pahole shares them.
        text = b"\0" + name.encode() + b"\0"
        if name and text not in self.strings:
            self.strings += text[1:]
        return self.strings.index(text) + 1 if name else 0

    def add(self, kind: int, name: str, value: int, *, length: int = 0, tail: bytes = b"") -> int:
        self.body += struct.pack("<III", self.text(name), kind << 24 | length, value) + tail
        self.count += 1
        return self.count

    def struct(self, name: str, members: list[tuple[str, int, int]], size: int) -> int:
        tail = b"".join(struct.pack("<III", self.text(member), type_, bits) for member, type_, bits in members)
        return self.add(STRUCT, name, size, length=len(members), tail=tail)

    def build(self) -> bytes:
        header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.body), len(self.body), len(self.strings))
        return header + self.body + self.strings


def sample() -> Types:
    types = Types()
    types.add(INT, "int", 4, tail=bytes(4))
    proto = types.add(PROTO, "", 0, length=2, tail=bytes(16))
    function = types.add(PTR, "", proto)
    types.add(ARRAY, "", 0, tail=bytes(12))
    types.add(ENUM, "colour", 4, length=3, tail=bytes(24))
    thunk = types.struct("thunk", [("func", function, 0)], 8)
    lazy = types.struct("lazy", [("enter", function, 0), ("leave", function, 64)], 16)
    inner = types.struct("inner", [("one", function, 0), ("two", thunk, 64), ("mode", lazy, 128)], 32)
    types.add(TYPEDEF, "outer", inner)
    types.struct("outer", [("first", inner, 0), ("last", function, 256)], 40)
    return types


def image(section: bytes) -> KernelImage:
    builder = ElfBuilder()
    builder.text(".text", bytes(16))
    builder.section(".BTF", section)
    return load_image(builder.build())


def test_leaves_of_nested_structures() -> None:
    types = read_btf(image(sample().build()))
    assert types is not None
    assert types.leaves("outer") == [
        ("first.one", "inner", 0),
        ("first.two.func", "thunk", 64),
        ("first.mode.enter", "lazy", 128),
        ("first.mode.leave", "lazy", 192),
        ("last", "outer", 256),
    ]
    assert types.leaves("colour") is None
    assert types.leaves("absent") is None


def test_a_structure_inside_itself_ends() -> None:
    types = Types()
    types.struct("snake", [("tail", 1, 0)], 8)
    types.struct("wide", [("tail", 2, 0)] * 60_000, 8)
    read = read_btf(image(types.build()))
    assert read is not None
    assert read.leaves("snake") is None
    assert read.leaves("wide") is None


@pytest.mark.parametrize("cut", [0, 10, 24, 40, 100])
def test_cut_off_section_is_none(cut: int) -> None:
    assert read_btf(image(sample().build()[:cut])) is None


def test_damaged_sections_are_read_or_left() -> None:
    data = sample().build()
    rng = random.Random(3)
    for _ in range(500):
        broken = bytearray(data)
        for _ in range(3):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        types = read_btf(image(bytes(broken)))
        if types is not None:
            types.leaves("outer")


@pytest.mark.kernel
def test_real_types_and_the_catalogue_agree(kernels: Callable[[str], KernelImage]) -> None:
    for name in ("vmlinuz-6.1.0-56-cloud-amd64", "vmlinuz-6.1.0-56-amd64"):
        assert layout_from_types(kernels(name)) is LAYOUTS["6.1-64"]
    assert layout_from_types(kernels("vmlinuz-6.1.0-50-686-pae")) is None
