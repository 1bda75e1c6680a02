"""How costs grow: ``python -m benchmarks.growth [WORD ...]`` prints the table of docs/explanation/speed.md.

A row is one cost at several sizes, in processor time of the best of some repeats, which load of the machine disturbs
least. Its last column is the exponent between the two largest sizes: 1 is what grows as its size does, and more than
``LINEAR`` is worse than that; the exit code is 1 if a row is. Words choose rows whose name contains one.
"""

from __future__ import annotations

import gc
import math
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from time import process_time
from typing import Any

import attrs

from benchmarks import livepatch, rig, studies, switching
from pvops_core.backends import load_backends
from pvops_core.machine import Machine, MachineKind
from pvops_core.machine.engines import BLOCK_NS
from pvops_core.machine.run.clock import Clock
from pvops_core.machine.run.eventlog import EventLog
from pvops_core.study.plan import plan_study
from pvops_core.study.spec import StudySpec

LINEAR = 1.15
MIB = 1 << 20
VCPUS, MEMORY, SITES = (1, 8, 32, 128), (64, 512, 4096, 8192), (1_000, 10_000, 100_000)
EVENTS, SNAPSHOTS, CELLS = (10_000, 100_000, 1_000_000), (10, 100, 400), (4, 16, 64)
JOBS = (1, 2, 4, 8)
TOUCHED, CHANGED = 16 * MIB, 1 * MIB

Act = Callable[[], object]
Prepared = Callable[[int], AbstractContextManager[Act]]


@attrs.frozen
class GrowingCost:
    """One cost.

    Attributes:
        name: what is done.
        sizes: how much of it, in this order.
        unit: what the sizes count.
        prepared: makes for a size what is then timed, which may be done again.
        repeats: how often; the best counts.
        clock: seconds so far.
    """

    name: str
    sizes: Sequence[int]
    unit: str
    prepared: Prepared
    repeats: int = 5
    clock: Callable[[], float] = process_time

    def seconds(self) -> list[float]:
        """What it takes at each size: turn about, so that what else the machine does hits all of them."""
        with ExitStack() as stack:
            acts = [stack.enter_context(self.prepared(size)) for size in self.sizes]
            rounds = [[self._once(act) for act in acts] for _ in range(self.repeats)]
        return [min(times) for times in zip(*rounds, strict=True)]

    def _once(self, act: Act) -> float:
        # A collection of what was there before would be timed with it.
        gc.collect()
        gc.disable()
        try:
            start = self.clock()
            act()
            return self.clock() - start
        finally:
            gc.enable()


def children() -> float:
    """Processor seconds of all processes that have been started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def often(act: Act, times: int) -> Act:
    """So many of it: what takes microseconds cannot be timed alone."""

    def all_of_them() -> None:
        for _ in range(times):
            act()

    return all_of_them


@contextmanager
def machines(vcpus: int) -> Iterator[Act]:
    """Make a machine, and close it."""

    def make() -> None:
        Machine(MachineKind.X86_64, memory=MIB, vcpus=vcpus).close()

    yield make


@contextmanager
def turns(vcpus: int) -> Iterator[Act]:
    """Each vCPU runs about 200,000 blocks, in slices."""
    with rig.machine(vcpus=vcpus) as machine:
        rig.start(machine, b"\xeb\xfe")  # jumps to itself for ever
        yield partial(machine.run, max_ns=vcpus * 200_000 * BLOCK_NS)


@contextmanager
def dropped(vcpus: int) -> Iterator[Act]:
    """One place of text is dropped everywhere, a thousand times."""
    with rig.machine(vcpus=vcpus) as machine:
        rig.start(machine, rig.counted(b"\x90", 10))
        yield often(partial(machine.invalidate, [(rig.TEXT, rig.TEXT + 5)]), 1000)


@contextmanager
def live_patched(vcpus: int) -> Iterator[Act]:
    """Apply or revert, from the request to the end, twenty times."""
    with rig.machine(vcpus=vcpus) as machine:
        patch = livepatch.patched(machine)
        machine.run(max_ns=100_000 * vcpus)
        yield often(partial(livepatch.toggle, patch, machine), 20)


@contextmanager
def big(mib: int) -> Iterator[Machine]:
    """A machine with so much memory, of which little is touched."""
    with Machine(MachineKind.X86_64, memory=mib * MIB) as machine:
        machine.memory.array[:TOUCHED] = 1
        yield machine


@contextmanager
def taken(mib: int) -> Iterator[Act]:
    """Take a snapshot."""
    with big(mib) as machine:
        yield machine.snapshot


@contextmanager
def restored(mib: int) -> Iterator[Act]:
    """Change a MiB, and go back."""
    with big(mib) as machine:
        snapshot = machine.snapshot()

        def back() -> None:
            machine.memory.array[:CHANGED] = 2
            machine.restore(snapshot)

        yield back


@contextmanager
def made(mib: int) -> Iterator[Act]:
    """Make a machine with so much memory, and close it."""

    def make() -> None:
        Machine(MachineKind.X86_64, memory=mib * MIB).close()

    yield make


@contextmanager
def installed(sites: int) -> Iterator[Act]:
    """Read the sites and patch all of them."""

    def install() -> None:
        with rig.machine() as machine:
            board = switching.board(machine, sites)
            board.install()
            board.apply_paravirt()

    yield install


@contextmanager
def switched(sites: int) -> Iterator[Act]:
    """Switch the op that all of them call."""
    with rig.machine(vcpus=2) as machine:
        board = switching.board(machine, sites)
        board.install()
        board.apply_paravirt()
        targets: cycle[Any] = cycle([switching.other, board.implementation(switching.OP)])
        yield lambda: board.switch(switching.OP, next(targets), by="growth")


@contextmanager
def recorded(events: int) -> Iterator[Act]:
    """Record events, and hash the log."""

    def record() -> str:
        log = EventLog(Clock())
        for number in range(events):
            log.record("thing", 0, number=number)
        return log.sha256

    yield record


@contextmanager
def read(events: int) -> Iterator[Act]:
    """Go through all of a log."""
    log = EventLog(Clock())
    for number in range(events):
        log.record("thing", 0, number=number)
    yield lambda: sum(1 for _ in log)


@contextmanager
def many(snapshots: int) -> Iterator[Act]:
    """Take so many snapshots of a machine that goes on between them, and keep them."""
    with rig.machine() as machine:

        def take() -> None:
            rig.start(machine, rig.counted(b"\x90", 10))
            machine.run()
            kept = [machine.snapshot() for _ in range(snapshots)]
            machine.restore(kept[0])

        yield take


@contextmanager
def cells(count: int, jobs: int) -> Iterator[Act]:
    """Make so many runs of the built-in guest, so many at a time, each in a process of its own."""
    spec = StudySpec(backends=("native",), layouts="6.1-64", seeds=f"0..{count - 1}")
    yield partial(studies.bare, plan_study(spec, load_backends(), Path()).cells, jobs)


def workers(jobs: int) -> AbstractContextManager[Act]:
    """As many runs by more workers."""
    return cells(CELLS[1], jobs)


def rows() -> Iterator[GrowingCost]:
    """All of them."""
    yield GrowingCost("make a machine and close it", VCPUS, "vCPUs", machines)
    yield GrowingCost("200,000 blocks on each vCPU", VCPUS, "vCPUs", turns)
    yield GrowingCost("1,000 places of text dropped on all vCPUs", VCPUS, "vCPUs", dropped)
    yield GrowingCost("20 live patches, request to end", VCPUS, "vCPUs", live_patched)
    yield GrowingCost("make a machine and close it", MEMORY, "MiB of memory", made)
    yield GrowingCost("take a snapshot, 16 MiB touched", MEMORY, "MiB of memory", taken)
    yield GrowingCost("go back to it, 1 MiB changed", MEMORY, "MiB of memory", restored)
    yield GrowingCost("read and patch all sites", SITES, "sites", installed, repeats=3)
    yield GrowingCost("switch an op with so many sites", SITES, "sites", switched)
    yield GrowingCost("record events and hash them", EVENTS, "events", recorded, repeats=3)
    yield GrowingCost("go through a log", EVENTS, "events", read, repeats=3)
    yield GrowingCost("take and keep snapshots", SNAPSHOTS, "snapshots", many, repeats=3)
    for jobs in (1, 4):
        run = partial(cells, jobs=jobs)
        yield GrowingCost(
            f"runs of the built-in guest, {jobs} at a time", CELLS, "cells", run, repeats=2, clock=children
        )
    yield GrowingCost(f"{CELLS[1]} runs of the built-in guest", JOBS, "at a time", workers, repeats=2, clock=children)


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """How the last step grows: seconds go with the size to this power."""
    return math.log(seconds[-1] / seconds[-2]) / math.log(sizes[-1] / sizes[-2])


def told(seconds: float) -> str:
    """In milliseconds, three digits of it."""
    return f"{seconds * 1e3:,.3g}" if seconds < 1 else f"{seconds * 1e3:,.0f}"


def main(wanted: Sequence[str]) -> int:
    """Print the table; 1 if something grows faster than its size."""
    print("| what | sizes | of | milliseconds of processor time | exponent |\n|---|---|---|---|---|")  # noqa: T201
    worst = 0.0
    for row in rows():
        if not wanted or any(word in f"{row.name} {row.unit}" for word in wanted):
            seconds = row.seconds()
            grows = exponent(row.sizes, seconds)
            worst = max(worst, grows)
            sizes, figures = (", ".join(each) for each in (map("{:,}".format, row.sizes), map(told, seconds)))
            print(f"| {row.name} | {sizes} | {row.unit} | {figures} | {grows:.2f} |", flush=True)  # noqa: T201
    return int(worst > LINEAR)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
