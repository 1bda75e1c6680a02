"""What a folder of results holds, seen from outside while a study is running, and held against another's at its end."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import attrs
from msgspec.structs import asdict

from pvops_core.study.rows import HERE
from pvops_core.study.store import FILE, Store


@attrs.define
class Seen:
    """Runs that were there once.

    Attributes:
        folder: of results.
        runs: key -> when, where and how fast it was run, as first seen.
    """

    folder: Path
    runs: dict[str, tuple[object, ...]] = attrs.field(factory=dict)

    def look(self) -> int:
        """Take note of what is there now; how many runs have been seen."""
        for key, run in self._now():
            self.runs.setdefault(key, run)
        return len(self.runs)

    def lost(self) -> Iterator[str]:
        """Runs that were seen and are gone, or were made once more."""
        now = dict(self._now())
        for key, run in self.runs.items():
            if key not in now:
                yield f"run {key[:12]} was there, and is gone"
            elif now[key] != run:
                yield f"run {key[:12]} was there as {run}, and is there as {now[key]}: it was made twice"

    def _now(self) -> list[tuple[str, tuple[object, ...]]]:
        """Empty where nobody may read: a writer that was killed may have left what the next one has to take back."""
        file = self.folder / FILE
        with contextlib.suppress(sqlite3.Error), contextlib.closing(_connected(file)) as database:
            found = database.execute(f"SELECT key, {', '.join(HERE)} FROM runs").fetchall()  # noqa: S608 - names of our own
            return [(key, tuple(run)) for key, *run in found]
        return []


def unlike(folder: Path, other: Path) -> Iterator[str]:
    """Where two folders differ in what must not depend on where and when a run was made."""
    with Store.read(folder) as one, Store.read(other) as two:
        found, wanted = one.rows(), two.rows()
    if len(found) != len(wanted):
        yield f"{len(found)} cells, and {len(wanted)} in a run that nobody disturbed"
    for here, there in zip(found, wanted, strict=False):
        if here.axes != there.axes:
            yield f"{here.axes} stands where {there.axes} should"
        for name, value in asdict(there.measured).items():
            if name not in HERE and getattr(here.measured, name) != value:
                yield f"{here.axes}: {name} is {getattr(here.measured, name)!r}, and undisturbed {value!r}"


def _connected(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
