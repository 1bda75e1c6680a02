"""Processor time of commands that only tell something, and of those that go back to a saved boot.

The latter boot the kernel of ``PVOPS_KERNELS`` once, up to the first process, into a cache folder of their own; without
that variable there are no such rows.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import process_time

from benchmarks.measure import NANO, Result
from pvops_core.guests import read_kernel
from pvops_core.saved.front import read_head
from pvops_core.session import Session
from pvops_core.testing.recipes import SMALLEST_RAMDISK

PVOPS = str(Path(sys.executable).with_name("pvops"))
KERNEL = "vmlinuz-6.1.0-56-cloud-amd64"
TIMES = 10
"""Runs of each command, of which the best counts."""
AIMS = {("--help",): 70.0, ("backends",): 120.0}


def run() -> Iterator[Result]:
    """A row for each command."""
    for words, aim in AIMS.items():
        yield Result(f"pvops {' '.join(words)} (processor time)", cost([PVOPS, *words]) * 1e3, "ms", aim)
    floor = cost([sys.executable, "-c", "import typer"])
    yield Result("python -c 'import typer' (processor time)", floor * 1e3, "ms", 70.0)
    own = cost([sys.executable, "-c", "import pvops_core"])
    yield Result("import pvops_core (processor time)", own * 1e3, "ms", 70.0)
    folder = os.environ.get("PVOPS_KERNELS")
    if folder and (image := Path(folder, KERNEL)).is_file():
        with tempfile.TemporaryDirectory(prefix="pvops-startup") as place:
            yield from _saved(image, Path(place))


def _saved(image: Path, folder: Path) -> Iterator[Result]:
    """Rows of a boot that was saved."""
    environ = os.environ | {"XDG_CACHE_HOME": str(folder)}
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    booted, empty, initrd = (folder / name for name in ("test_booted.py", "test_nothing.py", "initrd"))
    booted.write_text("def test_it(kernel):\n    assert kernel.symbols\n")
    empty.write_text("def test_it():\n    pass\n")
    test = [*pytest, "--pvops-kernel", str(image), str(booted)]
    cost(test, environ, 1)
    yield Result("second run of a test of `kernel`, all of pytest (processor time)", cost(test, environ), "s", 1.0)
    yield Result("the same of a test that asks for nothing", cost([*pytest, str(empty)], environ), "s", 1.0)
    (file,) = (folder / "pvops" / "sessions").glob("*.session")
    initrd.write_bytes(SMALLEST_RAMDISK)  # what tests boot with is no file
    place = f"{read_head(file).ns + 1}ns"
    back = [PVOPS, "boot", "--load", str(file), "--initrd", str(initrd), "--stop-at", place]
    yield Result("pvops boot --load, and one guest instruction (processor time)", cost(back, environ), "s", 0.5)
    load = [sys.executable, "-m", "benchmarks.startup", str(file), str(initrd)]
    found = min(float(subprocess.run(load, check=True, env=environ, capture_output=True).stdout) for _ in range(5))
    yield Result("of it, reading the file and putting it in", found * 1e3, "ms", 50.0)


def cost(command: Sequence[str], environ: Mapping[str, str] = os.environ, times: int | None = None) -> float:
    """Seconds of processor time at its best of some runs, once all is compiled."""
    # Modules that are compiled anew each time would be what is measured.
    environ = {name: value for name, value in environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    least = NANO
    for _ in range(times or TIMES):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, env=environ, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        least = min(least, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return least


def load_cost(file: str, initrd: str) -> float:
    """Seconds of processor time from a session that has been made to one that has been loaded."""
    head, begun = read_head(Path(file)), []
    guest = read_kernel(head.origin.kernel, initrd, head.key.cmdline)
    with Session.load(file, guest=guest, prepare=lambda _session: begun.append(process_time())):
        return process_time() - begun[0]


if __name__ == "__main__":
    sys.stdout.write(f"{load_cost(*sys.argv[1:])}\n")
