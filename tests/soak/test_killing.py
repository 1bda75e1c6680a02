"""What an attack on a study sees: runs that go, are made twice, or are unlike; who is killed, and who is left."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from pvops_core.kinds import MachineKind
from pvops_core.runs.cell import Cell
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.study.axes import Axes
from pvops_core.study.rows import Measured
from pvops_core.study.store import FILE, PlannedRow, Store

psutil = pytest.importorskip("psutil")
from soak.killing.campaign import attack  # noqa: E402 - where that is installed
from soak.killing.cluster import Cluster  # noqa: E402
from soak.killing.kept import Seen, unlike  # noqa: E402


def results(folder: Path, seeds: int, **fields: object) -> Path:
    with Store.write(folder) as store:
        planned = []
        for seed in range(seeds):
            observation = Observation(Cell("native", "6.1-64", MachineKind.X86_64, seed=seed), Outcome.POWEROFF)
            measured = replace(Measured.of(f"{seed:064x}", observation, "host", 1), **fields)
            store.add(measured, observation)
            axes = Axes("builtin", "6.1-64", "x86_64", 16, 1, "", "", "", "", seed, 1, "native")
            planned.append(PlannedRow(axes, "", "", measured.key))
        store.note(planned, {})
    return folder


def test_runs_that_go_or_are_made_again_are_seen(tmp_path: Path) -> None:
    seen = Seen(tmp_path / "results")
    assert seen.look() == 0
    results(seen.folder, 3)
    assert seen.look() == 3
    assert list(seen.lost()) == []
    with closing(sqlite3.connect(seen.folder / FILE)) as database, database:
        database.execute("DELETE FROM runs WHERE key LIKE '%1'")
        database.execute("UPDATE runs SET ended = 2 WHERE key LIKE '%2'")
    assert [each.partition(" as ")[0] for each in seen.lost()] == [
        "run 000000000000 was there, and is gone",
        "run 000000000000 was there",
    ]


def test_what_differs_is_named_but_for_wall_time_and_host(tmp_path: Path) -> None:
    first = results(tmp_path / "a", 2)
    assert list(unlike(first, results(tmp_path / "b", 2, host="another", ended=9, wall_s=3.0))) == []
    (told, *others) = unlike(first, results(tmp_path / "c", 2, text_sha256="ab" * 32))
    assert "text_sha256 is ''" in told
    assert len(others) == 1
    assert "2 cells, and 3" in next(unlike(first, results(tmp_path / "d", 3)))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    waiting = [sys.executable, "-c", "import time; time.sleep(600)"]
    found = Cluster(tmp_path, lambda: waiting)
    yield found
    found.end()


def test_who_is_killed_is_gone_and_what_is_left_behind_is_named(cluster: Cluster) -> None:
    assert not cluster.kill("client", lambda there: there[0])
    cluster.begin()
    left = subprocess.Popen(cluster.client(), env={"XDG_CACHE_HOME": f"{cluster.folder}/x"})
    killed: list[int] = []

    def first(there: list[psutil.Process]) -> psutil.Process:
        killed.append(there[0].pid)
        return there[0]

    assert cluster.kill("client", first)
    until = time.monotonic() + 60
    while psutil.Process(killed[0]).status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
        time.sleep(0.01)
    assert not cluster.kill("client", first)
    assert [each.partition(":")[0] for each in cluster.end()] == [str(left.pid)]
    assert left.wait() == -9


@pytest.mark.slow
def test_a_study_survives_who_is_killed(tmp_path: Path) -> None:
    told: list[str] = []
    tally = attack(3, 10, 4, tell=told.append)
    assert tally.wrong == []
    assert 0 < tally.count == len(told) <= 4  # on a quick machine it is done before the last is due
    assert not list(tmp_path.iterdir())
