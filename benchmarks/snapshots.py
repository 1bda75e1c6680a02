"""Restoring a machine of 16 MiB after a run that touched some of it."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import rig
from benchmarks.measure import Result, best

TOUCHED = 256


def run() -> Iterator[Result]:
    """The row."""
    with rig.machine(memory=16 << 20) as machine:
        rig.start(machine, rig.counted(b"\x48\x01\xd8", 1000))
        snapshot = machine.snapshot()

        def dirty() -> None:
            machine.run()
            for page in range(TOUCHED):
                machine.memory.set_u64(0x200000 + (page << 12), page)

        seconds = best(lambda: machine.restore(snapshot), before=dirty, repeats=15)
        yield Result(f"restore of 16 MiB, {TOUCHED} pages changed", seconds * 1e3, "ms", 1.0)
