"""The ledger: who counted what, at which commit, of which rooms. ``soak/ledger.jsonl``, a line a count.

A count stands while the rooms that it is of mean what they meant then. Any run may add to it, whether an attacker's of
this package or another tool's: ``python -m soak record NAME COUNT --rooms …``.
"""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec

from soak import rooms
from soak.rooms import ROOT

LEDGER: Final = ROOT / "soak" / "ledger.jsonl"
BARS: Final = ROOT / "soak" / "bars.toml"
SOUND: Final = "sound"
"""The result of a run that found nothing wrong."""


class LedgerError(ValueError):
    """A line of the ledger is none, or what is to be counted says too little."""


class LedgerEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run.

    Attributes:
        name: of the bar that it counts toward.
        count: how many.
        unit: of what.
        rooms: what was exercised.
        key: what those rooms meant, by `rooms.key`.
        commit: that was checked out.
        seed: that the run began from; 0 where chance plays no part.
        result: `SOUND`, or what was wrong.
    """

    name: Annotated[str, msgspec.Meta(min_length=1)]
    count: Annotated[int, msgspec.Meta(ge=0)]
    unit: str
    rooms: tuple[str, ...]
    key: str
    commit: str
    seed: int = 0
    result: str = SOUND

    @property
    def stands(self) -> bool:
        """Whether the rooms are as they were."""
        try:
            return rooms.key(self.rooms) == self.key
        except rooms.NoRoomError:
            return False


class Goal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a name is to come to.

    Attributes:
        what: for people.
        unit: what is counted.
        bar: how many; 0 where nobody has set any.
        rooms: what is exercised.
    """

    what: str
    unit: str
    rooms: tuple[str, ...]
    bar: int = 0


def bars(path: Path = BARS) -> dict[str, Goal]:
    """All that is counted, by name."""
    return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), dict[str, Goal])


def read(path: Path = LEDGER) -> list[LedgerEntry]:
    """All entries, oldest first.

    Raises:
        LedgerError: a line is none; it says which.
    """
    found = []
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else (), 1):
        try:
            found.append(msgspec.json.decode(line, type=LedgerEntry))
        except msgspec.DecodeError as error:
            raise LedgerError(f"{path}:{number}: {error}") from error
    return found


def add(
    name: str, count: int, *, unit: str = "", of: Sequence[str] = (), seed: int = 0, result: str = SOUND,
    path: Path = LEDGER,
) -> LedgerEntry:  # fmt: skip
    """Add a run to the ledger.

    Args:
        name: of the bar.
        count: how many.
        unit: of what; the bar's if not given.
        of: rooms that were exercised; the bar's if not given.
        seed: that it began from.
        result: what was wrong.
        path: the ledger.

    Raises:
        LedgerError: neither the call nor ``bars.toml`` says of what rooms, or the count is below 0.
        NoRoomError: there is no such room.
    """
    bar = bars().get(name)
    exercised = tuple(sorted(of)) or (tuple(sorted(bar.rooms)) if bar else ())
    if not exercised:
        raise LedgerError(f"{name}: say which rooms it exercises, or give it a place in {BARS.name}")
    if count < 0:
        raise LedgerError(f"{name}: {count} is no count")
    unit = unit or (bar.unit if bar else "")
    entry = LedgerEntry(name, count, unit, exercised, rooms.key(exercised), commit(), seed, result)
    # Appended in one write, so that campaigns at one time do not mix their lines.
    with path.open("ab") as file:
        file.write(msgspec.json.encode(entry) + b"\n")
    return entry


def commit() -> str:
    """The commit that is checked out, with a plus where files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "pvops_core", "plugins")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def latest(entries: Iterable[LedgerEntry]) -> dict[str, list[LedgerEntry]]:
    """By name, those entries of the same rooms in the same state as its last one."""
    found: dict[str, list[LedgerEntry]] = {}
    for entry in entries:
        there = found.setdefault(entry.name, [])
        if there and (there[-1].key, there[-1].rooms) != (entry.key, entry.rooms):
            there.clear()
        there.append(entry)
    return found
