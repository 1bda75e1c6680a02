"""The ledger as people read it: in a terminal, and in docs/explanation/reliability.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from soak.ledger import SOUND, Goal, LedgerEntry, latest
from soak.rooms import ROOT

PAGE: Final = ROOT / "docs" / "explanation" / "reliability.md"
_BEGIN: Final = "<!-- made by python -m soak ledger --write -->\n"
_END: Final = "<!-- to here -->\n"


def found(entries: Sequence[LedgerEntry]) -> str:
    """What runs found, in a few words."""
    wrong = [entry.result for entry in entries if entry.result != SOUND]
    return "; ".join(wrong) if wrong else "nothing wrong"


def lines(entries: Sequence[LedgerEntry], bars: dict[str, Goal]) -> Iterator[str]:
    """For a terminal: of each name what stands today, of what it is to come to, and what has been counted ever."""
    by_name = latest(entries)
    for name in dict.fromkeys([*bars, *by_name]):
        last, bar = by_name.get(name, []), bars.get(name)
        ever = sum(entry.count for entry in entries if entry.name == name)
        standing = sum(entry.count for entry in last) if last and last[-1].stands else 0
        of = f" of {bar.bar:,}" if bar and bar.bar else ""
        unit = last[-1].unit if last else bar.unit if bar else ""
        yield f"{name}: {standing:,}{of} {unit} stand, {ever:,} ever" + (f"; {found(last)}" if last else "")


def page_table(entries: Sequence[LedgerEntry], bars: dict[str, Goal]) -> str:
    """For the page: of each name what the rooms' last counted state has come to. The ledger alone decides it."""
    rows = ["| what | counted | bar | found | at commit |", "|---|---|---|---|---|"]
    by_name = latest(entries)
    for name in dict.fromkeys([*bars, *by_name]):
        last, bar = by_name.get(name, []), bars.get(name)
        what = bar.what if bar else name
        if not last:
            rows.append(f"| {what} | not yet | {bar.bar if bar else 0:,} | | |")
            continue
        count = f"{sum(entry.count for entry in last):,} {last[-1].unit}"
        rows.append(f"| {what} | {count} | {bar.bar if bar else 0:,} | {found(last)} | {last[-1].commit} |")
    return "\n".join(rows).replace("| 0 |", "| |") + "\n"


def written(text: str, table: str) -> str:
    """A page with a table in its place."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert begin, "the page has a place for the table"
    assert end, "the place has an end"
    return f"{before}{begin}{table}{end}{after}"
