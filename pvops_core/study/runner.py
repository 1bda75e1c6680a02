"""Runs the cells of a plan that are not kept yet, and keeps each as it ends."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import attrs

from pvops_core.runs.cellrun import WARM
from pvops_core.runs.pool import default_jobs, execute_each
from pvops_core.study.rows import LOST, Measured

if TYPE_CHECKING:
    from pvops_core.child.limits import Limits
    from pvops_core.runs.cell import Cell
    from pvops_core.runs.observation import Observation
    from pvops_core.runs.wire import Request
    from pvops_core.study.plan import Planned
    from pvops_core.study.store import Store

LimitsOf = Callable[["Request"], "Limits"]


class StudyWatcher(Protocol):
    """Told of what happens while a study runs; what it raises ends the study."""

    def started(self, cell: Planned) -> None:
        """A cell is run."""

    def finished(self, cell: Planned, measured: Measured) -> None:
        """A cell was run and is kept."""


class Runner(Protocol):
    """Where cells are run."""

    def __call__(
        self, cells: Sequence[Planned], started: Callable[[int], None], ended: Callable[[int, Observation, str], None]
    ) -> None:
        """Run all of them; tells by number when one starts, and with which observation and on which host it ended."""


@attrs.frozen
class LocalRunner:
    """Worker processes on this machine, each of which makes one run after the other.

    Attributes:
        limits: what a run may take.
        jobs: processes; None for one a CPU.
    """

    limits: LimitsOf
    jobs: int | None = None

    def __call__(
        self, cells: Sequence[Planned], started: Callable[[int], None], ended: Callable[[int, Observation, str], None]
    ) -> None:
        """As :class:`Runner` says."""
        host = socket.gethostname()

        def requests() -> Iterator[Request]:
            for number, cell in enumerate(cells):
                started(number)
                yield cell.request

        execute_each(
            requests(),
            lambda number, observation: ended(number, observation, host),
            listener=_SilentListener(),
            jobs=self.jobs or default_jobs(len(cells)),
            limits=self.limits,
            command=WARM,
            stays=True,
        )


class _SilentListener:
    def started(self, cell: Cell) -> None:
        pass

    def console(self, cell: Cell, text: str) -> None:
        pass

    def finished(self, observation: Observation) -> None:
        pass


def pending(cells: Sequence[Planned], kept: dict[str, Measured], *, retry: bool = False) -> list[Planned]:
    """The cells that have to be run, each key once.

    Args:
        cells: of a plan.
        kept: what is there.
        retry: run again what was lost.
    """
    good = {key for key, row in kept.items() if not (retry and row.outcome in LOST)}
    return list({each.key: each for each in cells if each.key not in good}.values())


def run_cells(
    cells: Sequence[Planned],
    store: Store,
    runner: Runner,
    watcher: StudyWatcher,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Run cells and keep each durably as it ends. However this is left, what has ended is kept.

    Args:
        cells: what is run.
        store: where results are kept.
        runner: where cells are run.
        watcher: told of what happens.
        check: raises where a run that has just ended may not be what its key says.

    Raises:
        StoreError: a result cannot be kept; no further cell is run.
    """

    def ended(number: int, observation: Observation, host: str) -> None:
        # Before it is kept: what has changed meanwhile is of another key.
        check()
        measured = Measured.of(cells[number].key, observation, host, int(time.time()))
        store.add(measured, observation)
        watcher.finished(cells[number], measured)

    if cells:
        runner(cells, lambda number: watcher.started(cells[number]), ended)
