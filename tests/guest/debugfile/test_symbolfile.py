"""The file of symbols: read back by another reader, of kernels with and without ORC, sections, symbols."""

from __future__ import annotations

import contextlib
from io import BytesIO

import attrs
import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.errors import ImageError, UsageError
from pvops_core.guest.debugfile.symbolfile import symbol_file
from pvops_core.images import KernelImage, load_image
from pvops_core.testing.images import ElfBuilder
from tests.guest.stacks.frames import ENTRY

TEXT, ORC = 0xFFFFFFFF81000000, 0xFFFFFFFF82000000


def kernel(bits: int = 64, *, orc: bool = True, symbols: bool = True) -> KernelImage:
    """Two functions, per-CPU data at 0, and a build ID."""
    builder = ElfBuilder(bits=bits, base=TEXT if bits == 64 else 0xC1000000)
    text = builder.text(".text", bytes(0x40))
    builder.section(".data..percpu", bytes(0x20), address=0)
    builder.notes(("GNU", 3, b"identity"))
    if orc:
        places = np.array([text + at - (ORC + 4 * row) for row, at in enumerate((0, 0x10, 0x20))], "<i8").astype("<i4")
        rows = np.array([(8, 0, 5), (16, -16, 5 | 1 << 4), (0, 0, 0)], ENTRY)
        builder.section(".orc_unwind_ip", places.tobytes(), address=ORC)
        builder.section(".orc_unwind", rows.tobytes(), address=ORC + 0x1000)
    if symbols:
        builder.symbol("first", text)
        builder.symbol("second", text + 0x10, is_global=False)
        builder.symbol("counter", 8, is_global=False)
    return load_image(builder.build(), "vmlinux")


WHOLE = kernel().data


def opened(image: KernelImage, offset: int = 0) -> ELFFile:
    made = symbol_file(image, offset)
    assert made is not None
    return ELFFile(BytesIO(made.data))


@pytest.mark.parametrize(("bits", "machine"), [(64, "EM_X86_64"), (32, "EM_386")])
def test_sections_have_places_and_no_bytes(bits: int, machine: str) -> None:
    image = kernel(bits, orc=False)
    made = opened(image)
    assert (made.elfclass, made["e_machine"], made["e_type"]) == (bits, machine, "ET_EXEC")
    text, notes = made.get_section_by_name(".text"), made.get_section_by_name(".notes")
    assert (text["sh_type"], text["sh_addr"], text["sh_size"]) == ("SHT_NOBITS", image.sections[1].address, 0x40)
    assert notes["sh_type"] == "SHT_NOTE"
    assert b"identity" in notes.data()
    table = made.get_section_by_name(".symtab")
    symbols = {each.name: each for each in table.iter_symbols() if each.name}
    assert {name: (each["st_info"]["type"], each["st_info"]["bind"]) for name, each in symbols.items()} == {
        "first": ("STT_FUNC", "STB_GLOBAL"),
        "second": ("STT_FUNC", "STB_LOCAL"),
        "counter": ("STT_OBJECT", "STB_LOCAL"),
    }
    assert made.get_section(symbols["counter"]["st_shndx"]).name == ".data..percpu"
    assert symbols["second"]["st_size"] == 0x30
    assert table["sh_info"] == 3  # the first global one


def test_frames_where_the_kernel_has_orc() -> None:
    made = symbol_file(kernel())
    assert made is not None
    assert (made.source, made.symbols, made.functions, made.frames) == (".symtab", 3, 2, 2)
    dwarf = opened(kernel()).get_dwarf_info()
    found = [each for each in dwarf.CFI_entries() if "initial_location" in each.header]
    # What lies behind the second function's last instruction is not its.
    assert [(each["initial_location"] - TEXT, each["address_range"]) for each in found] == [(0, 0x10), (0x10, 0x10)]


def test_symbols_alone_where_it_has_none() -> None:
    made = symbol_file(kernel(orc=False))
    assert made is not None
    assert made.frames == 0
    assert opened(kernel(orc=False)).get_section_by_name(".debug_frame") is None


def test_a_kernel_without_symbols() -> None:
    assert symbol_file(kernel(symbols=False)) is None


def test_a_kernel_that_was_moved_keeps_its_per_cpu_data_where_it_is() -> None:
    made = opened(kernel(), 0x1D000000)
    symbols = {each.name: each["st_value"] for each in made.get_section_by_name(".symtab").iter_symbols()}
    assert symbols["first"] == TEXT + 0x1D000000 == made.get_section_by_name(".text")["sh_addr"]
    assert symbols["counter"] == 8
    assert made.get_section_by_name(".data..percpu")["sh_addr"] == 0
    ranges = [each.header for each in made.get_dwarf_info().CFI_entries() if "initial_location" in each.header]
    places = [each["initial_location"] for each in ranges]
    assert TEXT + 0x1D000000 in places


@pytest.mark.parametrize("offset", [1 << 31, -(1 << 64)])
def test_out_of_the_address_space(offset: int) -> None:
    with pytest.raises(UsageError, match="would leave the address space"):
        symbol_file(kernel(), offset)


def test_an_image_without_sections_has_its_segments() -> None:
    image = kernel(orc=False)
    bare = attrs.evolve(image, sections=tuple(attrs.evolve(each, flags=0) for each in image.sections))
    made = opened(bare)
    assert made.get_section_by_name("segment0")["sh_flags"] == 6
    assert made.get_section_by_name("segment1")["sh_size"] == 0x20


@given(st.lists(st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6))
def test_damage_is_told_or_does_no_harm(edits: list[tuple[int, bytes]]) -> None:
    broken = bytearray(WHOLE)
    for at, data in edits:
        # From the end, where the headers of sections are.
        start = max(0, len(broken) - at - len(data))
        broken[start : start + len(data)] = data
    with contextlib.suppress(ImageError):
        made = symbol_file(load_image(bytes(broken), "vmlinux"))
        assert made is None or ELFFile(BytesIO(made.data)).num_sections() > 3
