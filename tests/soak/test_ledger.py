"""Counts stand while what they are of is unchanged."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soak import ledger, rooms, table
from soak.ledger import Goal, LedgerEntry, LedgerError

BARS = {"a": Goal("what a is", "things", ("images",), 10), "b": Goal("what b is", "boots", ("images",))}


def entry(name: str = "a", count: int = 4, key: str = "old", **more: object) -> LedgerEntry:
    return LedgerEntry(name, count, "things", ("images",), key, "abc", **more)  # type: ignore[arg-type]


def test_a_count_is_added_and_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    made = [ledger.add("images", count, seed=count, path=path) for count in (3, 5)]
    assert ledger.read(path) == made
    assert all(each.stands for each in made)
    assert made[0].rooms == tuple(sorted(ledger.bars()["images"].rooms))
    assert made[0].unit == "images"
    assert ledger.read(tmp_path / "none") == []


def test_a_name_without_a_bar_says_its_rooms(tmp_path: Path) -> None:
    made = ledger.add("boots", 2, unit="boots", of=["xen/hypervisor", "kinds"], path=tmp_path / "ledger")
    assert made.rooms == ("kinds", "xen/hypervisor")
    with pytest.raises(LedgerError, match="say which rooms"):
        ledger.add("boots", 2, path=tmp_path / "ledger")
    with pytest.raises(LedgerError, match="no count"):
        ledger.add("images", -1, path=tmp_path / "ledger")
    assert len(ledger.read(tmp_path / "ledger")) == 1


@pytest.mark.parametrize("line", ["{}", "[", '{"name": ""}', "\\ud800", '{"name":"a","count":-1}'])
def test_a_line_that_is_none_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.write_bytes(msgspec.json.encode(entry()) + b"\n" + line.encode() + b"\n")
    with pytest.raises(LedgerError, match=":2: "):
        ledger.read(path)


@pytest.mark.parametrize("room", ["", "..", "../docs", "nowhere", "xen/nowhere", "/etc", "."])
def test_rooms_that_are_none(room: str) -> None:
    with pytest.raises(rooms.NoRoomError):
        rooms.key([room])


def test_a_key_is_of_all_files_in_any_order() -> None:
    assert rooms.key(["images", "xen"]) == rooms.key(["xen", "images"]) != rooms.key(["images"])
    assert rooms.key(["xen", "xen/hypervisor"]) == rooms.key(["xen"])
    assert len(rooms.files("kinds")) == 1


def test_what_source_says_is_without_comments_and_docstrings() -> None:
    spoken = '"""Doc."""\nA = "é # no"  # yes\n\n\ndef f(x: int) -> int:\n    """Doc\n    more."""\n    return x  # é\n'
    silent = 'A = "é # no"\ndef f(x: int) -> int:\n    return x\n'
    assert rooms.said(spoken) == rooms.said(silent)
    assert rooms.said(silent) != rooms.said(silent.replace("# no", "# ja"))


@given(st.sampled_from(["'text'", "f'{1 + 2}'", "1", "b'x'"]))
def test_what_is_no_docstring_counts(value: str) -> None:
    assert rooms.said(f"A = {value}\n") == f"A={''.join(value.split())}"


def test_the_last_state_of_the_rooms_is_what_is_shown() -> None:
    entries = [entry(), entry(key="new", count=6), entry("b"), entry(key="new", result="2 wrong bytes")]
    assert [each.count for each in ledger.latest(entries)["a"]] == [6, 4]
    shown = list(table.lines(entries, BARS))
    assert shown[0] == "a: 0 of 10 things stand, 14 ever; 2 wrong bytes"
    page = table.page_table(entries[:3], BARS)
    assert "| what a is | 6 things | 10 | nothing wrong | abc |" in page
    assert "| what b is | 4 things | | nothing wrong | abc |" in page


def test_the_page_is_of_the_ledger() -> None:
    text = table.PAGE.read_text(encoding="utf-8")
    assert table.written(text, table.page_table(ledger.read(), ledger.bars())) == text, "python -m soak ledger --write"


def test_every_bar_has_rooms() -> None:
    for bar in ledger.bars().values():
        assert rooms.key(bar.rooms)
