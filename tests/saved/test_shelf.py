"""The shelf of booted kernels: its locks, and what goes first."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pvops_core.saved.shelf import Shelf

ROOT = Path(__file__).parents[2]
HOLDER = """
import os, sys, time
from pathlib import Path
from pvops_core.saved.shelf import Shelf
with Shelf(Path(sys.argv[1]), 1).held("name"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf", 1 << 30)


def test_a_holder_that_dies_gives_the_lock_back(shelf: Shelf) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(shelf.folder)], stdout=subprocess.PIPE, cwd=ROOT
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
        with shelf.held("name") as place:
            assert place


def test_locks_go_with_what_they_are_for(shelf: Shelf) -> None:
    def left() -> list[str]:
        return sorted(path.name for path in shelf.folder.iterdir())

    with shelf.held("name"):
        shelf.path("name").write_bytes(b"")
    shelf.clear(0)
    assert left() == [".name.lock", "name.session"]
    with shelf.held("other"):
        shelf.clear(1 << 40)
        assert left() == [".other.lock"], "it is in use"
    shelf.clear(1 << 40)
    assert not left()


def test_who_waits_for_a_lock_that_is_taken_away_holds_the_next(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = shelf.folder / ".name.lock"
    waits = []

    def waited(file: int, operation: int) -> None:
        if not waits:
            lock.unlink()
        waits.append(operation)
        flock(file, operation)

    flock = fcntl.flock
    monkeypatch.setattr("fcntl.flock", waited)
    with shelf.held("name") as place:
        assert place
        assert len(waits) == 2
        assert lock.exists()


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 10 << 10)
    for number in range(4):
        shelf.path(str(number)).write_bytes(b"x" * 4096)
        os.utime(shelf.path(str(number)), (number, number))
    shelf.used("0")
    shelf.trim("1")
    assert sorted(path.name for path, _size, _used in shelf.files()) == ["0.session", "1.session"]
    assert shelf.clear(0) == (0, 0)
    assert shelf.clear(1 << 40) == (2, 8192)
    assert not shelf.files()
