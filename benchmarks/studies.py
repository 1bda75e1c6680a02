"""What a study costs beside its bare runs, here and through a cluster, and what a second worker brings.

``python -m benchmarks.studies [SEEDS] [PIECES]``: built-in guest on native and xen, two cells a seed. The ways take
turns, a piece of the cells each, so that what else the machine does meets all alike; told are wall time, and processor
time of all processes. Wants two CPUs; the cluster's part is left out where Dask is not installed. The last line is a
row for a table: cells, overhead here, through Dask, throughput of two workers beside one, growth of memory, load.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

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


def _cpu_s() -> float:
    """Processor time of this process and all that it has started, as far as they are there or were waited for."""
    ticks = 0
    for process in _family():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _family() -> list[int]:
    family = [os.getpid()]
    for process in family:
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{process}/task").iterdir():
                family += map(int, (thread / "children").read_text(encoding="utf-8").split())
    return family


@attrs.define
class _Way:
    """One way to run cells, and what it took so far."""

    name: str
    run: Callable[[Sequence[Planned]], None]
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peaks: list[int] = attrs.field(factory=list)

    def piece(self, cells: Sequence[Planned]) -> None:
        wall, cpu = time.perf_counter(), _cpu_s()
        self.run(cells)
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += _cpu_s() - cpu
        self.peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)

    def told(self, cells: int) -> str:
        wall, cpu = (1000 * each / cells for each in (self.wall_s, self.cpu_s))
        return f"{self.name:28} {self.wall_s:8.1f} s {wall:7.0f} ms a cell, {cpu:7.0f} ms of processor time"


def main(seeds: int, pieces: int) -> None:
    """Print each way's time, and their ratios."""
    spec = StudySpec(backends=("native", "xen"), layouts="6.1-64", seeds=f"0..{seeds - 1}")
    cells = plan_study(spec, load_backends(), Path()).cells
    alone = _Way("bare runs, two workers", lambda some: bare(some, 2))
    two = _Way("study, two workers", lambda some: _kept(some, LocalRunner(_limits, 2)))
    one = _Way("study, one worker", lambda some: _kept(some, LocalRunner(_limits, 1)))
    ways = [alone, two, one]
    with contextlib.ExitStack() as stack:
        if find_spec("distributed"):
            from pvops_core.study.cluster import ClusterRunner, cluster_here  # noqa: PLC0415 - where it is installed

            runner = ClusterRunner(stack.enter_context(cluster_here(2)), _limits, ())
            ways.append(_Way("study, two workers of Dask", lambda some: _kept(some, runner)))
        for number in range(pieces):
            for way in ways:
                way.piece(cells[number::pieces])
                _say(f"{way.told(len(cells) * (number + 1) // pieces)}, {way.peaks[-1]} MiB, load {_load():.1f}")
    here = _overheads(two, alone)
    spread = _overheads(ways[3], alone) if ways[3:] else "not measured"
    growth = max(alone.peaks[-1] - alone.peaks[0], two.peaks[-1] - two.peaks[0])
    _say(f"overhead {here}; through Dask {spread}; two workers have {one.wall_s / two.wall_s:.2f} times the throughput")
    _say(f"| {len(cells)} | {here} | {spread} | {one.wall_s / two.wall_s:.2f} | {growth} MiB | {_load():.1f} |")


def _overheads(way: _Way, beside: _Way) -> str:
    wall, cpu = (100 * (mine / its - 1) for mine, its in ((way.wall_s, beside.wall_s), (way.cpu_s, beside.cpu_s)))
    return f"{wall:.0f} % ({cpu:.0f} % of processor time)"


def _load() -> float:
    return os.getloadavg()[0]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:]]
    main(*(given + [500, 5][len(given) :]))
