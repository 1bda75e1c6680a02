"""Runs cells side by side, each in a child process of its own."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING, Protocol

from pvops_core.child.limits import Limits
from pvops_core.runs.cellrun import WORKER, CellRun, worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pvops_core.child.supervised import Child
    from pvops_core.runs.cell import Cell
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
    typist: InputFeeder | None = None,
    stays: bool = False,
    voice: Callable[[Cell, Said], None] | None = None,
    terminal: tuple[int, int] | None = None,
) -> tuple[Observation, ...]:
    """Run every request; the observations are in the order of the requests.

    No request's end, however bad, takes another's observation away. When this function is left by an exception
    (``KeyboardInterrupt`` among them) every child has been ended. What ``typist`` types goes to a guest that runs alone
    and whose request is live. The command of a worker that ``stays`` is ``WARM``, or speaks like it.
    ``voice`` is told of what plugins say while guests run; a debugger in one may use ``terminal``, two descriptors to
    read from and write to. Not to be called inside a running event loop.
    """
    make = partial(CellRun, limits=limits or Limits(), stays=stays, typist=typist)
    workers = [worker(command, terminal) for _ in range(jobs or default_jobs(len(requests)))]
    return asyncio.run(_execute(requests, listener, workers, make, voice))


async def _execute(
    requests: Sequence[Request],
    listener: Listener,
    workers: Sequence[Child],
    make: Callable[..., CellRun],
    voice: Callable[[Cell, Said], None] | None,
) -> tuple[Observation, ...]:
    slots = asyncio.Semaphore(len(workers))
    idle = list(workers)

    async def one(request: Request) -> Observation:
        async with slots:
            cell, place = request.cell, idle.pop()
            try:
                listener.started(cell)
                run = make(
                    request,
                    place,
                    on_console=lambda text: listener.console(cell, text),
                    on_said=voice and partial(voice, cell),
                )
                observation = await run.run()
                listener.finished(observation)
            finally:
                idle.append(place)
            return observation

    tasks = [asyncio.create_task(one(request)) for request in requests]
    try:
        return tuple(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(place.end() for place in workers))
