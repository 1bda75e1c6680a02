from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pvops_core.child.limits import Limits
from pvops_core.study import remote
from pvops_core.study.errors import ClusterError
from pvops_core.study.plan import Planned, StudyPlan, plan_study
from pvops_core.study.rows import HERE, Measured
from pvops_core.study.runner import LocalRunner, Runner, StudyWatcher, run_cells
from pvops_core.study.spec import StudySpec
from pvops_core.study.store import PlannedRow, Store

distributed = pytest.importorskip("distributed")
from pvops_core.study.cluster import ClusterRunner, cluster_at, cluster_here  # noqa: E402 - where that is installed

if TYPE_CHECKING:
    from pvops_core.backends import Loaded

if TYPE_CHECKING:
    from distributed import Client

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the library's own


class Quiet:
    def started(self, cell: Planned) -> None:
        pass

    def finished(self, cell: Planned, measured: Measured) -> None:
        assert cell.key == measured.key


@pytest.fixture(scope="module")
def plan(loaded: Loaded) -> StudyPlan:
    spec = StudySpec(backends=("native", "xen"), layouts="6.1-64", seeds="0..5")
    return plan_study(spec, loaded, Path())


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with cluster_here(2) as found:
        yield found


def limits(_request: object) -> Limits:
    return Limits()


def kept(
    folder: Path, plan: StudyPlan, runner: Runner, watcher: StudyWatcher | None = None
) -> list[tuple[object, ...]]:
    """What a runner's runs left behind: all that must not depend on where they ran."""
    with Store.write(folder) as store:
        store.note([PlannedRow(c.axes, *c.hashes, c.key) for c in plan.cells], {})
        run_cells(plan.cells, store, runner, watcher or Quiet())
        rows = store.rows()
    fields = [name for name in Measured.__struct_fields__ if name not in HERE]
    return [(row.axes, *(getattr(row.measured, name) for name in fields)) for row in rows]


def test_a_cluster_gives_what_this_machine_gives_whoever_is_killed(
    client: Client, plan: StudyPlan, tmp_path: Path
) -> None:
    """A worker is killed after every third cell: each cell is there once, and like the local ones."""

    class Killing(Quiet):
        done = 0

        def finished(self, cell: Planned, measured: Measured) -> None:
            super().finished(cell, measured)
            self.done += 1
            if self.done % 3 == 0:
                (pid, *_others) = client.run(os.getpid, on_error="ignore").values()
                os.kill(pid, signal.SIGKILL)

    watching = Killing()
    found = kept(tmp_path / "cluster", plan, ClusterRunner(client, limits, ()), watching)
    assert watching.done == len(found) == len(plan.cells)
    assert found == kept(tmp_path / "local", plan, LocalRunner(limits, 2))


def test_workers_that_are_unlike_are_named(
    client: Client, plan: StudyPlan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = remote.parts_here
    monkeypatch.setattr(remote, "parts_here", lambda *given: here(*given) | {"pvops_xen": "f" * 64})
    with pytest.raises(ClusterError, match=r"pvops_xen is ffffffffffff… here and [0-9a-f]{12}… there") as told:
        run_cells(plan.cells, store, ClusterRunner(client, limits, ()), Quiet())
    assert told.value.address.startswith("tcp://")
    assert store.keys() == {}


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pvops_core.study.cluster._CONNECT_S", 1)
    with pytest.raises(ClusterError, match="no scheduler of Dask answers there"), cluster_at("tcp://127.0.0.1:1"):
        pass


def test_a_scheduler_that_dies_leaves_what_has_ended(plan: StudyPlan, tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    common = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    place = ["--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    begin = [sys.executable, "-m"]
    with subprocess.Popen([*begin, "distributed.cli.dask_scheduler", *place], **common) as scheduler:
        while not file.exists() or not file.read_text():
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        start = [*begin, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"]

        class Killing(Quiet):
            def finished(self, cell: Planned, measured: Measured) -> None:
                super().finished(cell, measured)
                scheduler.kill()

        with subprocess.Popen(start, **common) as worker, Store.write(tmp_path / "results") as store:
            try:
                with pytest.raises(ClusterError), cluster_at(address) as client:
                    run_cells(plan.cells, store, ClusterRunner(client, limits, ()), Killing())
                assert 1 <= len(store.keys()) < len(plan.cells)
            finally:
                worker.terminate()
                scheduler.kill()
