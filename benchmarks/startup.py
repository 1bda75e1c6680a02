"""Processor time of commands that only tell something, against Python's own start with the command line's library."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import NANO, Result

PVOPS = str(Path(sys.executable).with_name("pvops"))


def run() -> Iterator[Result]:
    """A row for each command."""
    floor = cost([sys.executable, "-c", "import typer, pydantic"])
    for words in (["--help"], ["backends"]):
        value = cost([PVOPS, *words])
        yield Result(f"pvops {' '.join(words)} (processor time)", value * 1e3, "ms", 200.0)
    yield Result("python -c 'import typer, pydantic' (processor time)", floor * 1e3, "ms", 200.0)
    yield Result(
        "import pvops_core (processor time)", cost([sys.executable, "-c", "import pvops_core"]) * 1e3, "ms", 200.0
    )


def cost(command: list[str]) -> float:
    """Seconds of processor time at its best of ten, once all is compiled."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    least = NANO
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, env=environ, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        least = min(least, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return least
