"""Structures of both widths out of C, against what gcc says of the same declarations, and what their fields read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.headers import CStruct, Header, StructView
from pvops_core.testing.headers import check_layout

TEXT = """
#define COUNT 3
typedef uint32_t port_t;
struct inner { uint8_t first; uint64_t wide; };
struct outer {
    char name[5];
    int16_t small;
    unsigned long word;
    void *handle;
    union { struct { port_t port; uint64_t when; } event; unsigned long number; } u;
    struct inner row[COUNT];
#ifdef __x86_64__
    uint32_t only64;
#else
    uint16_t only32;
#endif
    unsigned long last[2];
};
"""


@pytest.fixture
def header(tmp_path: Path) -> Header:
    path = tmp_path / "small.h"
    path.write_text(TEXT, encoding="utf-8")
    return Header(path)


@pytest.fixture
def outer(header: Header) -> CStruct:
    return header["outer"]


@pytest.mark.parametrize("bits", [32, 64])
def test_the_layout_is_the_compilers(header: Header, bits: int) -> None:
    assert check_layout([header], bits) == 16


def test_the_widths_differ(outer: CStruct) -> None:
    assert [outer.offset("u.event.when", bits) for bits in (32, 64)] == [20, 32]
    assert "only64" in outer.names(64)
    assert "only64" not in outer.names(32)


def test_packed_means_that_nothing_is_aligned(tmp_path: Path) -> None:
    path = tmp_path / "packed.h"
    path.write_text("struct p { uint8_t a; uint64_t b; uint16_t c; };", encoding="utf-8")
    assert Header(path, packed=True)["p"].size(64) == 11
    assert Header(path)["p"].size(64) == 24


def test_a_header_sees_what_it_includes(header: Header, tmp_path: Path) -> None:
    path = tmp_path / "more.h"
    path.write_text("struct more { port_t port; struct inner inner; };", encoding="utf-8")
    more = Header(path, header)["more"]
    assert [more.size(bits) for bits in (32, 64)] == [16, 24]


@pytest.mark.parametrize("path", ["nothing", "u.nothing", "word.more", "only32"])
def test_a_field_that_is_not_there_is_named(outer: CStruct, path: str) -> None:
    with pytest.raises(AttributeError, match=rf"small\.h: struct outer has no {path} in 64 bits"):
        outer.offset(path, 64)


def test_some_fields_are_read_as_the_whole_or_as_a_part(outer: CStruct) -> None:
    whole, part = outer.whole("small", "word", "last"), outer.part("small", "word")
    assert whole.at(64).offset == 0
    assert whole.at(64).form.size == outer.size(64)
    assert (part.at(32).offset, part.at(32).form.size) == (6, 6)
    raw = whole.at(32).form.pack(-2, 7, 8, 9)
    assert len(raw) == outer.size(32)
    assert whole.at(32).form.unpack(raw) == (-2, 7, 8, 9)
    assert part.at(32).form.unpack_from(raw, 6) == (-2, 7)


def test_fields_must_be_named_in_their_order(outer: CStruct) -> None:
    with pytest.raises(ValueError, match="small does not follow"):
        outer.whole("word", "small").at(64)


@given(bits=st.sampled_from([32, 64]), value=st.integers(-(1 << 70), 1 << 70))
def test_a_number_is_assigned_as_by_c(bits: int, value: int) -> None:
    outer = Header(Path(__file__).with_name("headers_sample.h"))["sample"]
    record = outer.over(bytearray(b"\xee" * outer.size(bits)), bits)
    for name, size in (("byte", 1), ("half", 2), ("word", bits // 8), ("handle", bits // 8)):
        before = bytes(record.raw)
        record[name] = value
        at = outer.offset(name, bits)
        assert record[name] == value % (1 << 8 * size)
        assert bytes(record.raw[:at] + record.raw[at + size :]) == before[:at] + before[at + size :]
    record["number"] = value
    assert record["number"] == (value + (1 << 31)) % (1 << 32) - (1 << 31)


def test_texts_and_rows(outer: CStruct) -> None:
    record = outer.over(bytearray(b"\xee" * outer.size(64)), 64)
    record["name"] = b"abc"
    assert record.raw[:5] == b"abc\xee\xee"
    record["last[0]"], record["last[1]"] = 1, 2
    assert record.row("last") == (1, 2)
    with pytest.raises(ValueError, match="name has 5 bytes, and 6 are to go there"):
        record["name"] = b"abcdef"
    with pytest.raises(TypeError):
        StructView(outer, bytes(outer.size(64)), 64)["word"] = 1


def test_a_packed_structure_has_zeros_where_nothing_is_said(outer: CStruct) -> None:
    raw = outer.packed(32, {"name": b"abcde", "word": 1})
    assert raw == (b"abcde\0\0\0\1").ljust(outer.size(32), b"\0")


def test_what_a_header_says_is_read_once(
    header: Header, outer: CStruct, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    places = {path: outer.place(path, 32) for path in ("name", "u.event.when", "row[2].wide", "last[1]", "handle")}
    again = Header(header.path)
    monkeypatch.setattr(Header, "types", None)
    assert {path: again["outer"].place(path, 32) for path in places} == places
    assert again["outer"].names(32) == outer.names(32)
    assert again["inner"].size(32) == 12


def test_another_text_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path, below = tmp_path / "a.h", tmp_path / "b.h"
    path.write_text("struct s { struct t t; };", encoding="utf-8")
    for size in (1, 2):
        below.write_text(f"struct t {{ uint8_t row[{size}]; }};", encoding="utf-8")
        assert Header(path, Header(below))["s"].size(64) == size
    with pytest.raises(KeyError):
        Header(path, Header(below))["u"].size(64)
