"""None"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import ImageError, LayoutError
from pvops_core.images import load_image
from pvops_core.ops import LAYOUTS
from pvops_core.patching.sites import SITE_LIMIT, SiteRecord, read_sites
from pvops_core.patching.tables import find_table
from pvops_core.patching.text import executable_sections
from pvops_core.testing.images import ElfBuilder
from pvops_core.testing.kallsyms import TableShape
from pvops_core.testing.kernels import SmallKernel

if TYPE_CHECKING:
    from collections.abc import Mapping

TEXT = 0xFFFFFFFF81000000
TEXT32 = 0xC1000000


def image_with(records: bytes, *, bits: int = 64) -> bytes:
    builder = ElfBuilder(bits, base=TEXT if bits == 64 else TEXT32)
    builder.text(".text", b"\x90" * 256)
    builder.section(".parainstructions", records)
    return builder.build()


def test_records_of_both_word_sizes() -> None:
    wide = struct.pack("<QBBHI", TEXT + 16, 30, 6, 0x1FF, 0) + struct.pack("<QBBHI", TEXT, 31, 10, 7, 0)
    assert read_sites(load_image(image_with(wide))) == (
        SiteRecord(TEXT + 16, 30, 6, 0x1FF, ".text"),
        SiteRecord(TEXT, 31, 10, 7, ".text"),
    )
    narrow = struct.pack("<IBBH", TEXT32 + 3, 28, 13, 1)
    assert read_sites(load_image(image_with(narrow, bits=32))) == (SiteRecord(TEXT32 + 3, 28, 13, 1, ".text"),)


@pytest.mark.parametrize(
    ("second", "field"),
    [
        ((TEXT + 16, 1, 0), "len"),
        ((TEXT + 16, 1, 255), "len"),
        ((TEXT + 251, 1, 6), "instr"),
        ((TEXT - 1, 1, 6), "instr"),
        ((0, 1, 6), "instr"),
        ((0xFFFFFFFFFFFFFFFF, 1, 6), "instr"),
        ((TEXT + 5, 1, 6), "instr"),
        ((TEXT, 1, 6), "instr"),
    ],
)
def test_bad_record_is_named(second: tuple[int, int, int], field: str) -> None:
    records = struct.pack("<QBBHI", TEXT, 0, 6, 0, 0) + struct.pack("<QBB6x", *second)
    image = load_image(image_with(records))
    with pytest.raises(ImageError) as caught:
        read_sites(image)
    section = image.section(".parainstructions")
    assert section is not None
    assert caught.value.field == f".parainstructions[1].{field}"
    assert caught.value.offset == section.offset + 16


@pytest.mark.parametrize("rest", [8, 9])
def test_cut_off_record(rest: int) -> None:
    with pytest.raises(ImageError) as caught:
        read_sites(load_image(image_with(bytes(16 + rest))))
    assert caught.value.field == ".parainstructions[1].size"


@pytest.mark.parametrize("rest", [10, 12, 15])
def test_the_last_record_need_not_be_padded(rest: int) -> None:
    records = struct.pack("<QBB6x", TEXT, 0, 6) + struct.pack("<QBB6x", TEXT + 16, 30, 6)[:rest]
    first, last = read_sites(load_image(image_with(records)))
    assert (first.type, last.type, last.address) == (0, 30, TEXT + 16)


def test_too_many_sites_are_refused_before_they_are_read() -> None:
    image = load_image(image_with(bytes(16 * (SITE_LIMIT + 1))))
    with pytest.raises(ImageError, match="at most"):
        read_sites(image)


@pytest.mark.parametrize("member", [16, 24])
def test_one_section_of_text_over_another(member: int) -> None:
    """In memory (sh_addr) or only in the file (sh_offset): either way a site would be in both."""
    builder = ElfBuilder()
    builder.text(".text", bytes(256))
    builder.text(".init.text", bytes(256))
    raw = bytearray(builder.build())
    (table,) = struct.unpack_from("<Q", raw, 40)
    (first,) = struct.unpack_from("<Q", raw, table + 64 + member)
    struct.pack_into("<Q", raw, table + 128 + member, first + 255)
    image = load_image(bytes(raw))
    with pytest.raises(ImageError) as caught:
        executable_sections(image)
    assert caught.value.field == f"section[2] {'sh_addr' if member == 16 else 'sh_offset'}"


def test_a_kernel_that_names_its_functions_alone_says_where_the_names_are() -> None:
    class Unnamed(SmallKernel):
        def _symbols(self, builder: ElfBuilder, found: Mapping[str, int]) -> None:
            super()._symbols(builder, {name: at for name, at in found.items() if not name.startswith("paravirt_ops")})

        @property
        def linked(self) -> list[str]:
            return [*super().linked[7:], *super().linked[:7]]

    layout = LAYOUTS["2.6.23"]
    types = range(len(layout.slots))
    image = load_image(Unnamed(layout, types=types, stripped=TableShape(32, "absolute")).builder().build())
    with pytest.raises(LayoutError, match=r"is not named: .* without CONFIG_KALLSYMS_ALL \(the vmlinux that"):
        find_table(image, read_sites(image))
    named = load_image(Unnamed(layout, types=types).builder().build())
    with pytest.raises(LayoutError, match="fits none of the layouts"):
        find_table(named, read_sites(named))
