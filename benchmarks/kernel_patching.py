"""Planning and applying all sites of a real kernel once loaded, and ``pvops patch`` as a whole process."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from benchmarks.measure import Result, best
from pvops_core.backends.loading.loader import load_chains
from pvops_core.cli.options.fills import find_fills
from pvops_core.images import load_image
from pvops_core.patching.kernel import apply_plan, plan_kernel, read_kernel

FOLDER = Path(os.environ.get("PVOPS_KERNELS", "../shared/kernels"))
NAME = "vmlinuz-*-cloud-amd64"
MEBIBYTE = 1 << 20
RUN = "from pvops_core.cli import main; raise SystemExit(main())"


def find() -> Path | None:
    """A cloud kernel, if there is one."""
    return next(iter(sorted(FOLDER.glob(NAME))), None)


def whole(kernel: Path) -> tuple[float, float]:
    """Seconds and MiB of one ``pvops patch`` process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", RUN, "patch", str(kernel), "--backend", "native"]
        start = perf_counter()
        subprocess.run([*command, "--json", f"{folder}/out.json"], check=True, stdout=subprocess.DEVNULL)
        seconds = perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / MEBIBYTE


def run() -> Iterator[Result]:
    """Three rows, or none where no kernel is at hand."""
    kernel = find()
    if kernel is None:
        sys.stderr.write(f"no {NAME} in {FOLDER}: set PVOPS_KERNELS to measure real kernels\n")
        return
    seconds, mebibytes = whole(kernel)
    yield Result("pvops patch, cloud kernel, whole process", seconds, "s", 3.0)
    yield Result("its peak memory", mebibytes, "MiB", 600.0)
    read, fills = read_kernel(load_image(kernel)), find_fills("native", load_chains(("native",)))
    sites = len(plan_kernel(read, fills, 1).sites)
    text = bytearray(read.image.data)
    planned = best(lambda: apply_plan(plan_kernel(read, fills, 1), text), repeats=9)
    yield Result(f"planning and applying {sites:,} sites after load", planned * 1e3, "ms", 30.0)
