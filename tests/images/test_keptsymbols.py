"""Images that are unpacked, and symbols that are read, once."""

from __future__ import annotations

import struct
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.images import keptsymbols, load, load_image, model
from pvops_core.images.kallsyms import SymbolColumns
from pvops_core.images.symbols import build, read_symbols
from pvops_core.testing.images import ElfBuilder, make_bzimage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pvops_core.images.symboltable import SymbolTable


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, for things of any size."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(load, "WORTH", 1)
    monkeypatch.setattr(keptsymbols, "WORTH", 1)
    return tmp_path / "pvops"


@pytest.fixture
def packed() -> bytes:
    builder = ElfBuilder(64, 0x1000000)
    start = builder.text(".text", b"\x90" * 64)
    for number in range(9):
        builder.symbol(f"name{number % 7}", start + number)
    return make_bzimage(builder.build())


def columns(table: SymbolTable) -> tuple[object, ...]:
    return table.source, list(table.by_name.items()), table.shared, list(table.addresses), list(table.names)


def test_an_image_is_unpacked_and_read_once(packed: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_image(packed, "a")
    table = columns(first.symbol_table)
    assert [len(list((cache / kind).iterdir())) for kind in ("images", "symbols")] == [1, 1]
    monkeypatch.setattr(load, "unpack_bzimage", None)
    monkeypatch.setattr(model, "read_symbols", None)
    again = load_image(packed, "b")
    assert (again.data, again.sha256, again.release) == (first.data, first.sha256, first.release)
    assert columns(again.symbol_table) == table == columns(read_symbols(again))


@pytest.mark.parametrize(
    "damage", [lambda data: data[:0], lambda data: data[:-1], lambda data: data[:30] + b"x" + data[31:]]
)
def test_what_is_damaged_is_made_again(packed: bytes, cache: Path, damage: Callable[[bytes], bytes]) -> None:
    first = load_image(packed, "a")
    table = columns(first.symbol_table)
    files = [file for kind in ("images", "symbols") for file in (cache / kind).iterdir()]
    whole = [file.read_bytes() for file in files]
    for file, data in zip(files, whole, strict=True):
        file.write_bytes(damage(data))
    again = load_image(packed, "a")
    assert again.data == first.data
    assert columns(again.symbol_table) == table
    assert [file.read_bytes() for file in files] == whole


def test_a_folder_that_cannot_be_written_costs_no_more(packed: bytes, cache: Path) -> None:
    cache.write_text("no folder")
    assert load_image(packed, "a").symbols["name1"]


NAMES = st.lists(st.text(st.characters(), min_size=1, max_size=4), min_size=1, max_size=20, unique=True)


@given(names=NAMES, data=st.data())
def test_what_is_kept_answers_as_what_was_read(names: list[str], data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, (1 << 64) - 1), min_size=len(names), max_size=len(names), unique=True))
    table = build("test", SymbolColumns(names, places, [False] * len(names)))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_CACHE_HOME", folder)
        keptsymbols.kept_symbols("name", lambda: table)
        kept = keptsymbols.kept_symbols("name", lambda: pytest.fail("it was read again"))
    for name in names:
        assert kept.by_name[name] == table.by_name[name]
        assert name in kept.by_name
    assert "none of them" not in kept.by_name
    assert kept.by_name.get("none of them") is None
    assert len(kept.by_name) == len(names)
    assert kept.names[-1] == table.names[-1]
    assert kept.names[1:3] == table.names[1:3]
    with pytest.raises(IndexError):
        _ = kept.names[len(names)]
    assert columns(kept) == columns(table)
    assert kept.by_name == table.by_name
    assert [kept.by_name[name] for name in names] == [table.by_name[name] for name in names]
    with pytest.raises(KeyError):
        _ = kept.by_name["none of them"]


def test_names_of_one_hash_are_told_apart(packed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keptsymbols, "_hash", len)
    table = columns(load_image(packed, "a").symbol_table)
    again = load_image(packed, "a").symbols
    assert {name: again[name] for name, _ in table[1]} == dict(table[1])  # type: ignore[call-overload, misc, attr-defined]
    assert "name9" not in again


def test_a_whole_file_that_is_not_ours_is_made_again(packed: bytes, cache: Path) -> None:
    table = columns(load_image(packed, "a").symbol_table)
    (file,) = (cache / "symbols").iterdir()
    name = file.name.rpartition("-")[0]
    for front, body in ((b"", b"x"), (struct.pack("<Q", 3) + b"\xff\xff\xff", b"x" * 64), (b"x" * 20, b"")):
        keptsymbols._KEPT.write(name, front, body, aligned=True)
        assert columns(load_image(packed, "a").symbol_table) == table
