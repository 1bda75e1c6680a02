"""Runs cells on a cluster of Dask: a client of it and no more. Queues, heartbeats and retries are the cluster's."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future as ConcurrentFuture
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import dask
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed

from pvops_core.records import line, read
from pvops_core.runs.observation import Observation
from pvops_core.study import remote
from pvops_core.study.errors import ClusterError

if TYPE_CHECKING:
    from pvops_core.child.limits import Limits
    from pvops_core.study.plan import Planned
    from pvops_core.study.runner import LimitsOf

_AHEAD: Final = 3
"""Cells given to the cluster for each of its threads: enough that none waits, few enough that memory stays flat."""
_MOST_DEATHS: Final = 10
"""Times that the cluster may give a cell up since its workers died, each after retries of its own."""
_CONNECT_S: Final = 30
_LOGS: Final = ("distributed", "distributed.client", "tornado.application", "asyncio")
Expected = tuple[remote.Parts, tuple[str, ...], tuple[str, ...]]
"""What a worker has to be made of, with names of backends and plugins."""


@contextlib.contextmanager
def cluster_at(scheduler: str) -> Iterator[Client]:
    """A client of a scheduler.

    Raises:
        ClusterError: none answers there.
    """
    with _in_our_words():
        try:
            client = Client(scheduler, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as failure:
            raise ClusterError(f"no scheduler of Dask answers there: {failure}", scheduler) from failure
        with client:
            yield client


@contextlib.contextmanager
def cluster_here(workers: int) -> Iterator[Client]:
    """A client of a cluster of so many workers on this machine, each in the care of a nanny."""
    with (
        _in_our_words(),
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0", memory_limit=0) as local,
        Client(local, set_as_default=False) as client,
    ):
        yield client


@contextlib.contextmanager
def _in_our_words() -> Iterator[None]:
    """Dask logs with tracebacks what it then raises: it does so here only if its configuration asks for a log."""
    loggers = [] if dask.config.get("logging", None) else [logging.getLogger(name) for name in _LOGS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@attrs.define
class ClusterRunner:
    """The workers of a client.

    Attributes:
        client: of the cluster.
        limits: what a run may take.
        plugins: of the study.
    """

    client: Client
    limits: LimitsOf
    plugins: Sequence[str]
    _names: tuple[str, ...] = ()
    _parts: ConcurrentFuture[remote.Parts] = attrs.field(factory=ConcurrentFuture)
    _files: dict[str, str] = attrs.field(factory=dict)

    def __call__(
        self, cells: Sequence[Planned], started: Callable[[int], None], ended: Callable[[int, Observation, str], None]
    ) -> None:
        """As :class:`~pvops_core.study.runner.Runner` says.

        Raises:
            ClusterError: the cluster has no workers, they are unlike this machine, or it is lost.
        """
        self._names = tuple(dict.fromkeys(cell.axes.backend for cell in cells))
        cell_files = [(cell.request.cell.guest, cell.request.cell.initrd) for cell in cells]
        pairs = zip((cell.hashes for cell in cells), cell_files, strict=True)
        self._files = {sha: path for hashes, paths in pairs for sha, path in zip(hashes, paths, strict=True) if sha}
        with _told(self._address), ThreadPoolExecutor(1) as beside:
            self._parts = beside.submit(
                remote.parts_here, self._names, self.plugins
            )  # takes a second, as each worker's does
            self.client.wait_for_workers(1, timeout=_CONNECT_S)
            self._prepare(None)
            self._run(cells, started, ended)

    @property
    def _address(self) -> str:
        return str(getattr(self.client.scheduler, "addr", "the cluster"))

    def _prepare(self, workers: list[str] | None) -> None:
        """See that workers are like this machine, and have the files: each machine once."""
        found = self.client.run(remote.parts_once, self._names, tuple(self.plugins), workers=workers)
        for address, parts in found.items():
            for part, (here, there) in remote.unlike(self._parts.result(), parts).items():
                told = f"{part} is {_short(here)} here and {_short(there)} there"
                raise ClusterError(f"the worker is unlike this machine: {told}; install the same on both", address)
        missing = self.client.run(remote.missing_files, list(self._files), workers=workers)
        by_host = {address.rpartition(":")[0]: (address, hashes) for address, hashes in missing.items()}
        for address, hashes in by_host.values():
            for sha256 in hashes:
                data = Path(self._files[sha256]).read_bytes()
                self.client.run(remote.keep_file, sha256, data, workers=[address])

    def _run(
        self, cells: Sequence[Planned], started: Callable[[int], None], ended: Callable[[int, Observation, str], None]
    ) -> None:
        known, deaths = set(self.client.scheduler_info(n_workers=-1)["workers"]), dict[int, int]()
        numbers: dict[str, int] = {}
        waiting = iter(range(len(cells)))
        queue = as_completed(loop=self.client.loop)

        def submit(number: int) -> None:
            cell, again = cells[number], deaths.get(number, 0)
            limits = self.limits(cell.request)
            key = f"pvops-{cell.key}-{again}"
            numbers[key] = number
            arguments = (line(cell.request), cell.hashes, limits)
            queue.add(self.client.submit(_checked, self._expected, *arguments, key=key, pure=False))

        for _place in range(_AHEAD * max(1, sum(self.client.nthreads().values()))):
            if (number := next(waiting, None)) is not None:
                started(number)
                submit(number)
        for future in queue:
            number = numbers.pop(future.key)
            found = self._result(future, cells[number])
            if found is None or isinstance(found, str):
                deaths[number] = deaths.get(number, 0) + 1
                if deaths[number] > _MOST_DEATHS:
                    raise ClusterError(
                        f"workers die again and again with {cells[number].request.cell.title}", self._address
                    )
                if found is not None and found not in known:
                    known.add(found)
                    self._prepare([found])
                submit(number)
                continue
            ended(number, *found)
            if (number_ := next(waiting, None)) is not None:
                started(number_)
                submit(number_)

    @property
    def _expected(self) -> Expected:
        return self._parts.result(), self._names, tuple(self.plugins)

    def _result(self, future: Future, cell: Planned) -> tuple[Observation, str] | str | None:
        """What came of a cell; the address of a worker that was not prepared, or None where workers died."""
        if future.status in {"cancelled", "lost"}:
            raise ClusterError("the scheduler, or what it knew, is gone", self._address)
        failure = future.exception()
        if isinstance(failure, KilledWorker):
            return None
        if failure is not None:
            raise ClusterError(f"a worker failed at {cell.request.cell.title}: {failure!r}", self._address) from failure
        found = future.result()
        future.release()
        if isinstance(found, str):
            return found
        host, observation = found
        return read(observation, Observation), host


def _checked(expected: Expected, request: bytes, hashes: tuple[str, str], limits: Limits) -> str | tuple[str, bytes]:
    """On a worker: run a cell, or give its address where it has come since and is not prepared."""
    from distributed import get_worker  # noqa: PLC0415

    parts, names, plugins = expected
    if remote.missing_files([sha for sha in hashes if sha]) or parts != remote.parts_once(names, plugins):
        return str(get_worker().address)
    return remote.run_cell(request, hashes, limits)


def _short(text: str) -> str:
    return f"{text[:12]}…" if len(text) == 64 else text


@contextlib.contextmanager
def _told(address: str) -> Iterator[None]:
    try:
        yield
    except (OSError, TimeoutError) as failure:
        raise ClusterError(f"the cluster is lost: {failure or type(failure).__name__}", address) from failure
