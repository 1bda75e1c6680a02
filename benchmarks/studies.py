"""What a study costs beside its bare runs, here and through a cluster, and what a second worker brings.

``python -m benchmarks.studies [SEEDS]``: built-in guest on native and xen, two cells a seed. Wants an idle machine with
two CPUs; the cluster's part is left out where Dask is not installed.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pvops_core.backends import load_backends
from pvops_core.child.limits import Limits
from pvops_core.runs.cellrun import WARM
from pvops_core.runs.pool import execute_each
from pvops_core.study.plan import plan_study
from pvops_core.study.runner import LocalRunner, run_cells
from pvops_core.study.spec import StudySpec
from pvops_core.study.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pvops_core.runs.cell import Cell
    from pvops_core.runs.observation import Observation
    from pvops_core.study.plan import Planned
    from pvops_core.study.rows import Measured
    from pvops_core.study.runner import Runner


class _Quiet:
    def started(self, cell: Planned | Cell) -> None:
        pass

    def console(self, cell: Cell, text: str) -> None:
        pass


class _QuietStudy(_Quiet):
    def finished(self, cell: Planned, measured: Measured) -> None:
        pass


class _QuietRuns(_Quiet):
    def finished(self, observation: Observation) -> None:
        pass


def _limits(_request: object) -> Limits:
    return Limits()


def bare(cells: Sequence[Planned], jobs: int) -> None:
    """Make the runs, by workers that stay, and keep nothing."""
    requests = [cell.request for cell in cells]
    execute_each(requests, lambda *_: None, listener=_QuietRuns(), jobs=jobs, limits=_limits, command=WARM, stays=True)


def _kept(cells: Sequence[Planned], runner: Runner) -> None:
    with tempfile.TemporaryDirectory() as folder, Store.write(Path(folder)) as store:
        run_cells(cells, store, runner, _QuietStudy())
        assert len(store.keys()) == len(cells)


def _timed(what: str, cells: int, work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    took = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    load = os.getloadavg()[0]
    sys.stdout.write(f"{what:32} {took:8.1f} s {1000 * took / cells:8.0f} ms a cell   {peak} MiB   load {load:.1f}\n")
    sys.stdout.flush()
    return took


def main(seeds: int) -> None:
    """Print each way's time, and their ratios."""
    spec = StudySpec(backends=("native", "xen"), layouts="6.1-64", seeds=f"0..{seeds - 1}")
    cells = plan_study(spec, load_backends(), Path()).cells
    number = len(cells)
    bare = _timed("bare runs, two workers", number, lambda: bare(cells, 2))
    two = _timed("study, two workers", number, lambda: _kept(cells, LocalRunner(_limits, 2)))
    one = _timed("study, one worker", number, lambda: _kept(cells, LocalRunner(_limits, 1)))
    sys.stdout.write(
        f"overhead {100 * (two / bare - 1):.0f} %; two workers have {one / two:.2f} times the throughput\n"
    )
    if find_spec("distributed"):
        from pvops_core.study.cluster import ClusterRunner, cluster_here  # noqa: PLC0415 - where it is installed

        with cluster_here(2) as client:
            runner = ClusterRunner(client, _limits, ())
            cluster = _timed("study, two workers of Dask", number, lambda: _kept(cells, runner))
        sys.stdout.write(f"overhead through Dask {100 * (cluster / bare - 1):.0f} %\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
