"""Images that are unpacked, and symbols that are read, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.images import keptsymbols, load, load_image, model
from pvops_core.images.symbols import read_symbols
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
    return table.source, list(table.by_name.items()), table.shared, table.addresses, table.names


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
