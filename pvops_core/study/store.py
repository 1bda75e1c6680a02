"""The folder of a study's results: a SQLite database, one durable row a run.

A row is on disk when it has been added: whatever happens to this process or the machine, it stays. One process writes
at a time. The format is that of docs/reference/study.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import attrs
import msgspec
import xxhash

from pvops_core.records import document
from pvops_core.study.axes import AXES, Axes
from pvops_core.study.errors import StoreError
from pvops_core.study.rows import LOST, Measured, Row, columns, kept_observation, kept_text

if TYPE_CHECKING:
    from pvops_core.runs.observation import Observation

VERSION: Final = 2
FILE: Final = "results.sqlite"
_LOCK: Final = ".lock"
_MEASURED: Final = dict(columns(Measured))
_PLAN: Final = ("guest_sha256", "initrd_sha256", "key")
_COLUMNS: Final = tuple(name for name, _type in columns(Row))


def _table() -> str:
    def listed(names: Iterable[tuple[str, str]]) -> str:
        return ", ".join(f"{name} {kind}{' PRIMARY KEY' if name == 'key' else ''}" for name, kind in names)

    plan = ", ".join([*(f"{name} {kind}" for name, kind in columns(Axes)), *(f"{name} TEXT" for name in _PLAN)])
    return f"""
        CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
        CREATE TABLE runs ({listed(_MEASURED.items())}, observation TEXT, digest TEXT);
        CREATE TABLE plan (position INTEGER PRIMARY KEY, {plan});
        CREATE VIEW results AS SELECT position, {", ".join(_COLUMNS)}, observation
            FROM plan JOIN runs USING (key) ORDER BY position;
        PRAGMA user_version = {VERSION};
    """  # noqa: S608 - names of our own


@attrs.frozen
class PlannedRow:
    """A cell as its plan says it: what a folder knows of a run before it was made."""

    axes: Axes
    guest_sha256: str
    initrd_sha256: str
    key: str


@attrs.define(eq=False)
class Store:
    """An open folder of results; a context manager.

    Attributes:
        folder: where it is.
        database: the connection.
    """

    folder: Path
    database: sqlite3.Connection
    _lock: int | None = None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Open what is there, to read.

        Raises:
            StoreError: there is none, it is damaged, or of another version.
        """
        file = folder / FILE
        if not file.is_file():
            raise StoreError(f"has no results of a study ({FILE})", str(folder))
        return cls(folder, _opened(file, "ro"))

    @classmethod
    def write(cls, folder: Path) -> Self:
        """Open a folder to write, or make it.

        Raises:
            StoreError: it cannot be written, is damaged, of another version, or another process writes there.
        """
        with _told(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as failure:
            os.close(lock)
            raise StoreError("another process writes its results there: wait for it", str(folder)) from failure
        try:
            return cls(folder, _opened(folder / FILE, "rw"), lock)
        except BaseException:
            os.close(lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_failure: object) -> None:
        self.database.close()
        if self._lock is not None:
            os.close(self._lock)

    def note(self, cells: Iterable[PlannedRow], meta: Mapping[str, object]) -> None:
        """Say what the study is now: its cells in order, and what else is known of it. Runs that are kept stay.

        Raises:
            StoreError: it cannot be written; what was said before stands.
        """
        rows = [
            (n, *(getattr(c.axes, a) for a in AXES), c.guest_sha256, c.initrd_sha256, c.key)
            for n, c in enumerate(cells)
        ]
        with _told(self.folder), self.database:
            self.database.execute("BEGIN IMMEDIATE")
            self.database.execute("DELETE FROM plan")
            marks = ", ".join("?" * (len(AXES) + len(_PLAN) + 1))
            self.database.executemany(f"INSERT INTO plan VALUES ({marks})", rows)  # noqa: S608 - question marks
            values = [(name, json.dumps(value)) for name, value in meta.items()]
            self.database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values)

    def add(self, measured: Measured, observation: Observation) -> None:
        """Keep a run, durably: when this returns it is on disk.

        Raises:
            StoreError: it cannot be written; what was kept before still is.
        """
        self._add([(*document(measured).values(), text := kept_text(observation), _digest(measured, text))])

    def take(self, other: Store) -> int:
        """Keep the runs of another folder that are not here, or were lost here and not there; how many those are.

        Raises:
            StoreError: they cannot be read or written.
        """
        here, theirs = self.keys(), other.keys()
        lost = {key for key, row in here.items() if row.outcome in LOST}
        wanted = {key for key, row in theirs.items() if key not in here or (key in lost and row.outcome not in LOST)}
        self._add(row for row in other.raw() if row[0] in wanted)
        return len(wanted)

    def _add(self, rows: Iterable[tuple[Any, ...]]) -> None:
        marks = ", ".join("?" * (len(_MEASURED) + 2))
        with _told(self.folder), self.database:
            self.database.executemany(f"INSERT OR REPLACE INTO runs VALUES ({marks})", rows)  # noqa: S608 - question marks

    def raw(self) -> Iterator[tuple[Any, ...]]:
        """Every kept run that is whole, as it lies."""
        with _told(self.folder):
            for row in self.database.execute("SELECT * FROM runs ORDER BY rowid"):
                measured = _measured(row[:-2])
                if measured is not None and row[-1] == _digest(measured, row[-2]):
                    yield row

    def keys(self) -> dict[str, Measured]:
        """Key -> row of every kept run that is whole; one that is damaged counts as not there."""
        found = (_measured(row[:-2]) for row in self.raw())
        return {each.key: each for each in found if each is not None}

    def planned(self) -> list[PlannedRow]:
        """The study's cells, in order."""
        with _told(self.folder):
            rows = self.database.execute("SELECT * FROM plan ORDER BY position").fetchall()
            return [PlannedRow(msgspec.convert(dict(zip(AXES, r[1:], strict=False)), Axes), *r[-3:]) for r in rows]

    def rows(self) -> list[Row]:
        """The study's cells that were run, in order."""
        kept = self.keys()
        return [Row(c.axes, c.guest_sha256, c.initrd_sha256, kept[c.key]) for c in self.planned() if c.key in kept]

    def observation(self, key: str) -> Observation:
        """All that was observed of a run.

        Raises:
            StoreError: there is none of the key, or it is damaged.
        """
        with _told(self.folder):
            found = self.database.execute("SELECT observation FROM runs WHERE key = ?", (key,)).fetchone()
            if found is None:
                raise StoreError(f"has no run of key {key}", str(self.folder))
            return kept_observation(found[0])

    def meta(self) -> dict[str, Any]:
        """What is known of the study: name, file, reference and the like."""
        with _told(self.folder):
            return {name: json.loads(value) for name, value in self.database.execute("SELECT name, value FROM meta")}


def _digest(measured: Measured, text: str) -> str:
    said = json.dumps(list(document(measured).values()))
    return xxhash.xxh3_128_hexdigest(f"{said}\0{text}".encode())


def _measured(row: Iterable[Any]) -> Measured | None:
    try:
        return msgspec.convert(dict(zip(_MEASURED, row, strict=True)), Measured)
    except (msgspec.ValidationError, ValueError):
        return None


def _opened(file: Path, mode: str) -> sqlite3.Connection:
    with _told(file):
        if mode != "ro" and not (file.exists() and file.stat().st_size):
            _make(file)
        database = _connected(file, mode)
        try:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            database.execute("SELECT count(*) FROM results").fetchone()
        except BaseException:
            database.close()
            raise
    if version != VERSION:
        database.close()
        raise StoreError(f"has format {version}; this pvops reads format {VERSION}", str(file))
    return database


def _connected(file: Path, mode: str) -> sqlite3.Connection:
    """A commit is on disk, the folder's entry of it too, before it is acknowledged (https://sqlite.org/pragma.html)."""
    database = sqlite3.connect(f"{file.absolute().as_uri()}?mode={mode}", uri=True, timeout=60)
    database.execute("PRAGMA synchronous = EXTRA")
    return database


def _make(file: Path) -> None:
    """An empty one, made beside its place: whoever reads meanwhile sees none, or a whole one."""
    beside = file.with_name(f".{file.name}")
    beside.unlink(missing_ok=True)
    with contextlib.closing(_connected(beside, "rwc")) as database:
        database.executescript(f"BEGIN IMMEDIATE; {_table()} COMMIT;")
    beside.replace(file)


@contextlib.contextmanager
def _told(place: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as failure:
        told = f"{failure}".removesuffix(".")
        if isinstance(failure, sqlite3.OperationalError):
            raise StoreError(
                f"cannot be read or written: {told}; what was kept before is there", str(place)
            ) from failure
        raise StoreError(f"is damaged, or no database of a study: {told}", str(place)) from failure
    except (msgspec.ValidationError, json.JSONDecodeError) as failure:
        raise StoreError(f"is damaged: {failure}", str(place)) from failure
    except OSError as failure:
        raise StoreError(f"cannot be written: {failure.strerror or failure}", str(place)) from failure
