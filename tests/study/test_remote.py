from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from msgspec.structs import replace

from pvops_core.child.limits import Limits
from pvops_core.kinds import MachineKind
from pvops_core.records import line, read
from pvops_core.runs.cell import Cell
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.runs.wire import Request
from pvops_core.study import remote

CELL = Cell("native", "6.1-64", MachineKind.X86_64)


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_files_are_kept_by_what_is_in_them() -> None:
    sha256 = hashlib.sha256(b"kernel").hexdigest()
    assert remote.missing_files([sha256]) == [sha256]
    with pytest.raises(ValueError, match="other contents"):
        remote.keep_file(sha256, b"kernek")
    assert remote.missing_files([sha256]) == [sha256]
    remote.keep_file(sha256, b"kernel")
    assert remote.missing_files([sha256]) == []


def test_a_cell_runs_and_speaks_of_its_clients_files(cache_home: Path) -> None:
    """A kernel that is none is told by the path that the client gave; what runs is the file of its hash."""
    sha256 = hashlib.sha256(b"no kernel").hexdigest()
    remote.keep_file(sha256, b"no kernel")
    asked = Request(replace(CELL, guest="/of/the/client/vmlinuz", layout=""))
    host, answer = remote.run_cell(line(asked), (sha256, ""), Limits())
    found = read(answer, Observation)
    assert host
    assert found.cell == asked.cell
    assert found.outcome is Outcome.UNSUPPORTED
    assert found.reason.startswith("/of/the/client/vmlinuz: ")
    assert str(cache_home) not in answer.decode()


def test_cells_run_one_after_the_other() -> None:
    for seed in (0, 1):
        asked = Request(replace(CELL, seed=seed))
        _host, answer = remote.run_cell(line(asked), ("", ""), Limits())
        found = read(answer, Observation)
        assert (found.cell, found.outcome) == (asked.cell, Outcome.POWEROFF)


def test_a_run_without_end_is_that_cells_outcome() -> None:
    asked = Request(CELL)
    limits = Limits(start_s=0)  # over before the worker, warm or not, can have read what it is asked
    _host, answer = remote.run_cell(line(asked), ("", ""), limits)
    assert read(answer, Observation).outcome is Outcome.TIMEOUT


def test_what_is_unlike_is_named() -> None:
    here = remote.parts_here(("native",), ())
    assert here.keys() >= {"pvops_core", "pvops_native", "unicorn"}
    assert remote.unlike(here, remote.parts_once(("native",), ())) == {}
    other = here | {"unicorn": "1.0", "pvops_new": "00"}
    assert remote.unlike(other, here) == {"unicorn": ("1.0", here["unicorn"]), "pvops_new": ("00", "none")}
    assert remote.parts_here(("absent",), ())["backend absent"] == "is not there"
