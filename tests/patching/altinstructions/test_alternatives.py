from __future__ import annotations

import struct
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.errors import ImageError
from pvops_core.images import load_image
from pvops_core.patching.altinstructions.alternatives import (
    AltEntry,
    AltGroup,
    Padding,
    overlapping,
    read_alternatives,
    replace,
)
from pvops_core.patching.code.disasm import instruction_lengths
from pvops_core.patching.code.nops import NOPS, NopKind
from pvops_core.testing.images import ElfBuilder

NOPS64 = NOPS[NopKind.MODERN_64]
PADDING = Padding(NOPS64, partial(instruction_lengths, bits=64))
BASES = {64: 0xFFFFFFFF81000000, 32: 0xC1000000}

# (instr, repl, feature, inverted, len, rlen), from which a record is written at its own address.
Fields = tuple[int, int, int, bool, int, int]


def relative(size: int, at: int, fields: Fields) -> bytes:
    instr, repl, feature, inverted, length, rlen = fields
    word = struct.pack("<HH", feature, inverted) if size == 14 else struct.pack("<H", feature | inverted << 15)
    return (struct.pack("<ii", instr - at, repl - at - 4) + word + bytes([length, rlen])).ljust(size, b"\x01")


def absolute(bits: int, form: str, at: int, fields: Fields) -> bytes:
    del at
    instr, repl, feature, _, length, rlen = fields
    size, word = (24, "Q") if bits == 64 else (12, "I")
    return (struct.pack(f"<2{word}{form}", instr, repl, feature) + bytes([length, rlen])).ljust(size, b"\0")


SHAPES = {
    "3.3": (64, partial(relative, 12)),
    "4.0": (64, partial(relative, 13)),
    "6.3": (64, partial(relative, 14)),
    "3.3-32": (32, partial(relative, 12)),
    "4.0-32": (32, partial(relative, 13)),
    "6.3-32": (32, partial(relative, 14)),
    "2.6.23": (32, partial(absolute, 32, "B")),
    "2.6.38": (32, partial(absolute, 32, "H")),
    "2.6.25-64": (64, partial(absolute, 64, "B")),
    "2.6.38-64": (64, partial(absolute, 64, "H")),
}


def image_with(shape: str, entries: list[Fields], *, damage: bytes = b"", missing: int = 0) -> bytes:
    bits, write = SHAPES[shape]
    base = BASES[bits]
    builder = ElfBuilder(bits, base=base)
    builder.text(".text", b"\xcc" * 0x800, address=base)
    builder.text(".altinstr_replacement", b"\xcc" * 0x800, address=base + 0x1000)
    data = b""
    for fields in entries:
        data += write(base + 0x2000 + len(data), fields)
    builder.section(".altinstructions", data[: len(data) - missing] + damage, address=base + 0x2000)
    return builder.build()


def some_entries(base: int, feature_limit: int = 200) -> list[Fields]:
    return [(base + 11 * n, base + 0x1000 + 7 * n, 3 * n % feature_limit, False, 3 + n % 6, n % 4) for n in range(60)]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_told_by_what_it_says(shape: str) -> None:
    fields = some_entries(BASES[SHAPES[shape][0]])
    entries = read_alternatives(load_image(image_with(shape, fields)))
    assert [
        (e.address, e.replacement, e.feature, e.inverted, e.length, e.replacement_length) for e in entries
    ] == fields


@pytest.mark.parametrize("shape", ["3.3", "6.3"])
def test_inverted_feature(shape: str) -> None:
    base = BASES[64]
    (entry,) = read_alternatives(load_image(image_with(shape, [(base, base + 0x1000, 0x110, True, 6, 2)])))
    assert (entry.feature, entry.inverted) == (0x110, True)
    assert entry.applies(frozenset())
    assert not entry.applies(frozenset({0x110}))


@pytest.mark.parametrize("shape", ["3.3", "6.3"])
def test_one_bad_record_is_named(shape: str) -> None:
    base = BASES[64]
    fields = some_entries(base)
    fields[17] = (base - 0x1000, *fields[17][1:])
    with pytest.raises(ImageError) as caught:
        read_alternatives(load_image(image_with(shape, fields)))
    assert caught.value.field == ".altinstructions[17]"
    assert caught.value.offset is not None


@pytest.mark.parametrize(("shape", "padding"), [("2.6.23", 1), ("2.6.25-64", 5), ("2.6.38-64", 4)])
def test_the_last_record_may_lack_its_padding(shape: str, padding: int) -> None:
    base = BASES[SHAPES[shape][0]]
    fields = some_entries(base)
    whole = load_image(image_with(shape, fields))
    for missing in range(padding + 1):
        entries = read_alternatives(load_image(image_with(shape, fields, missing=missing)))
        assert entries == read_alternatives(whole)
    with pytest.raises(ImageError, match=r"no multiple of any record|are not text"):
        read_alternatives(load_image(image_with(shape, fields, missing=padding + 1)))


def test_cut_off_section_is_refused() -> None:
    with pytest.raises(ImageError) as caught:
        read_alternatives(load_image(image_with("3.3", some_entries(BASES[64]), damage=b"\0" * 5)))
    assert caught.value.field.startswith(".altinstructions")


def test_no_section_no_entries() -> None:
    builder = ElfBuilder()
    builder.text(".text", bytes(16))
    assert read_alternatives(load_image(builder.build())) == ()


@given(
    entries=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 20)), max_size=20),
    gaps=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)), max_size=15),
)
def test_overlapping_agrees_with_looking_at_every_byte(
    entries: list[tuple[int, int]], gaps: list[tuple[int, int]]
) -> None:
    spans, at = [], 0
    for gap, size in gaps:
        spans.append((at + gap, at + gap + size))
        at += gap + size
    made = [AltEntry(address, length, 0, 0, 0, inverted=False) for address, length in entries]
    touched = {byte for start, end in spans for byte in range(start, end)}
    expected = [entry for entry in made if touched & set(range(entry.address, entry.address + entry.length))]
    assert overlapping(made, spans) == expected
    groups = [AltGroup(entry.address, entry.length, (entry,)) for entry in made]
    assert [group.entries[0] for group in overlapping(groups, spans)] == expected


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("9c 58 90 90 90 90", "9c 58 0f 1f 40 00"),
        ("fa 90 90 90 90 90", "fa 0f 1f 44 00 00"),
        ("90 90 90 90 90 90", "66 0f 1f 44 00 00"),
        ("e8 90 90 90 90 90", "e8 90 90 90 90 90"),  # the nops are the call's distance
        ("90 c3 90 90", "90 c3 66 90"),
        ("90 90 c3 90 90 90", "66 90 c3 0f 1f 00"),
        ("90", "90"),
        ("0f 0b 90 90", "0f 0b 66 90"),
        ("06 90 90", "06 90 90"),  # no instruction in 64 bits: the kernel stops there
        ("90 90 06 90 90", "66 90 06 90 90"),
    ],
)
def test_optimize_nops(before: str, after: str) -> None:
    assert PADDING.optimize(bytes.fromhex(before)) == bytes.fromhex(after)


def test_longer_runs_use_the_longest_nop_first() -> None:
    assert PADDING.optimize(b"\x90" * 11) == NOPS64(8) + NOPS64(3)


def test_replacement_is_relocated_and_padded() -> None:
    entry = AltEntry(0x1000, 8, 0x9000, 5, 0, inverted=False)
    code = b"\xe8" + struct.pack("<i", 0x100)
    assert replace(entry, code, PADDING) == b"\xe8" + struct.pack("<i", 0x8100) + NOPS64(3)


def test_empty_replacement_is_all_nops() -> None:
    assert replace(AltEntry(0x1000, 6, 0, 0, 0, inverted=False), b"", PADDING) == NOPS64(6)
