"""Runs cells side by side, each in a child process of its own."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING, Protocol

from pvops_core.child.limits import Limits
from pvops_core.child.supervised import finish
from pvops_core.runs.cellrun import WORKER, CellRun, worker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence

    from pvops_core.child.supervised import Child
    from pvops_core.runs.cell import Cell
    from pvops_core.runs.cellrun import Told
    from pvops_core.runs.inputfeeder import InputFeeder
    from pvops_core.runs.observation import Observation
    from pvops_core.runs.wire import Request, Said


class Listener(Protocol):
    """Told of what happens while cells run; an exception that it raises ends the whole execution."""

    def started(self, cell: Cell) -> None:
        """A child process is about to be started for the cell."""

    def console(self, cell: Cell, text: str) -> None:
        """The cell's guest printed something."""

    def finished(self, observation: Observation) -> None:
        """The cell has its observation, of whatever outcome."""


def default_jobs(cells: int) -> int:
    """As many children at once as there are CPUs to use, and no more than there are cells."""
    return max(1, min(len(os.sched_getaffinity(0)), cells))


def execute(
    requests: Sequence[Request],
    *,
    listener: Listener,
    jobs: int | None = None,
    limits: Limits | None = None,
    command: Sequence[str] = WORKER,
    feeder: InputFeeder | None = None,
    stays: bool = False,
    on_said: Callable[[Cell, Said], None] | None = None,
    on_told: Told | None = None,
    terminal: tuple[int, int] | None = None,
) -> tuple[Observation, ...]:
    """Run every request; the observations are in the order of the requests.

    No request's end, however bad, takes another's observation away. When this function is left by an exception
    (``KeyboardInterrupt`` among them) every child has been ended. What ``feeder`` types goes to a guest that runs alone
    and whose request is live. The command of a worker that ``stays`` is ``WARM``, or speaks like it.
    ``on_said`` is told of what plugins say while guests run, ``on_told`` how far one that runs alone has come and what
    its guest has taken of what was typed; a debugger in one may use ``terminal``, two descriptors to
    read from and write to. Not to be called inside a running event loop.
    """
    found: dict[int, Observation] = {}
    bound = limits or Limits()
    execute_each(
        requests,
        found.__setitem__,
        listener=listener,
        jobs=jobs or default_jobs(len(requests)),
        limits=lambda _request: bound,
        command=command,
        feeder=feeder,
        stays=stays,
        on_said=on_said,
        on_told=on_told,
        terminal=terminal,
    )
    return tuple(found[number] for number in range(len(requests)))


def execute_each(
    requests: Iterable[Request],
    keep: Callable[[int, Observation], None],
    *,
    listener: Listener,
    jobs: int,
    limits: Callable[[Request], Limits],
    command: Sequence[str] = WORKER,
    feeder: InputFeeder | None = None,
    stays: bool = False,
    on_said: Callable[[Cell, Said], None] | None = None,
    on_told: Told | None = None,
    terminal: tuple[int, int] | None = None,
) -> None:
    """As :func:`execute`, with observations given away as they come and requests taken as places become free.

    Args:
        requests: what is to be run.
        keep: told a request's number, from 0, and its observation; what it raises ends the whole execution.
        listener: told of what happens.
        jobs: runs at once.
        limits: what each run may take.
        command: how a worker is started.
        feeder: who types at a guest that runs alone.
        stays: a worker makes one run after the other.
        on_said: told of what plugins say.
        on_told: told of a run that is made alone how far it has come, and of each stroke that its guest has taken.
        terminal: descriptors for a debugger in a run.
    """

    async def serve(place: Child, numbered: Iterator[tuple[int, Request]]) -> None:
        for number, request in numbered:
            cell = request.cell
            listener.started(cell)
            run = CellRun(
                request,
                place,
                limits(request),
                stays=stays,
                feeder=feeder,
                on_console=partial(listener.console, cell),
                on_said=on_said and partial(on_said, cell),
                on_told=on_told,
            )
            observation = await run.run()
            listener.finished(observation)
            keep(number, observation)

    finish(_all([worker(command, terminal) for _ in range(jobs)], enumerate(requests), serve))


async def _all(
    places: Sequence[Child],
    numbered: Iterator[tuple[int, Request]],
    serve: Callable[[Child, Iterator[tuple[int, Request]]], Coroutine[None, None, None]],
) -> None:
    tasks = [asyncio.create_task(serve(place, numbered)) for place in places]
    try:
        await asyncio.gather(*tasks)
    finally:
        # One that raised leaves the others at work: they are stopped before their children are ended.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(place.end() for place in places))
