"""Type sections written here as pahole writes them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from pvops_core.images import KernelImage, load_image
from pvops_core.images.btf import Leaf, read_btf
from pvops_core.ops import LAYOUTS
from pvops_core.patching.derived import layout_from_types
from pvops_core.testing.images import ElfBuilder
from pvops_core.testing.types import ARRAY, CONST, ENUM, INT, PROTO, PTR, TYPEDEF, Types

if TYPE_CHECKING:
    from collections.abc import Callable


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
        Leaf("first.one", "inner", 0, 3),
        Leaf("first.two.func", "thunk", 64, 3),
        Leaf("first.mode.enter", "lazy", 128, 3),
        Leaf("first.mode.leave", "lazy", 192, 3),
        Leaf("last", "outer", 256, 3),
    ]
    assert types.leaves("colour") is None
    assert types.leaves("absent") is None


def test_types_as_c_spells_them() -> None:
    types = Types()
    number = types.add(INT, "long unsigned int", 8, tail=bytes(4))
    desc = types.struct("desc_ptr", [], 0)
    wanted = {
        number: "unsigned long",
        types.add(TYPEDEF, "u64", number): "u64",
        types.add(PTR, "", types.add(CONST, "", desc)): "const struct desc_ptr *",
        types.add(PTR, "", types.add(PTR, "", 0)): "void **",
        types.add(ENUM, "colour", 4): "enum colour",
        types.add(PTR, "", types.count + 1): None,  # a pointer to itself
        9999: None,
    }
    read = read_btf(image(types.build()))
    assert read is not None
    assert {type_: read.spelling(type_) for type_ in wanted} == wanted
    assert read.base(3) == "unsigned long"


def test_prototype_of_a_function_pointer() -> None:
    types = Types()
    slot = LAYOUTS["7.2-64"].by_path("cpu.read_msr_safe")
    pointer = types.function(slot.op)
    read = read_btf(image(types.build()))
    assert read is not None
    numbers = read.prototype(pointer)
    assert numbers is not None
    assert [read.spelling(number) for number in numbers] == ["int", "u32", "u64 *"]
    assert read.prototype(numbers[0]) is None


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
            for leaf in types.leaves("outer") or ():
                for number in types.prototype(leaf.type) or ():
                    types.spelling(number)


@pytest.mark.kernel
def test_real_types_and_the_catalogue_agree(kernels: Callable[[str], KernelImage]) -> None:
    for name in ("vmlinuz-6.1.0-56-cloud-amd64", "vmlinuz-6.1.0-56-amd64"):
        assert layout_from_types(kernels(name)) is LAYOUTS["6.1-64"]
    assert layout_from_types(kernels("vmlinuz-6.1.0-50-686-pae")) is None
    for name in ("vmlinuz-6.12.117+deb12-cloud-amd64", "vmlinuz-6.12.117+deb12-amd64"):
        assert layout_from_types(kernels(name)) is LAYOUTS["6.12-64"]
    assert layout_from_types(kernels("vmlinuz-7.2.13+deb14-cloud-amd64")) is LAYOUTS["7.2-64"]
