"""``python -m benchmarks.ops_boots``: boots with a backend's own hooks serving the kernel, by boots without."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from benchmarks.boots.__main__ import FOLDER, INITRD, KERNEL
from benchmarks.boots.contestants import Booted, pvops
from benchmarks.boots.usage import CommandError, measure

AIMS = {"native": 1.7, "xen": 2.2}
"""How many times the processor time of a boot without we want at most."""


def main(
    *,
    kernel: Annotated[Path, typer.Option(help="The kernel.")] = FOLDER / KERNEL,
    initrd: Annotated[Path, typer.Option(help="Its ramdisk; its init must power the machine off.")] = FOLDER / INITRD,
    backends: Annotated[str, typer.Option(help="Backends, parted by commas.")] = "native,xen",
    rounds: Annotated[int, typer.Option(help="How often each boots; the medians are compared.")] = 3,
    timeout: Annotated[float, typer.Option(help="Seconds that one boot may take.")] = 600,
    to: Annotated[str | None, typer.Option("--json", help="Write the figures as JSON; - for standard output.")] = None,
) -> None:
    """Boot a kernel to power-off without and with ``--ops``, turn about, and print medians of processor time."""
    boot, figures = Booted(kernel, initrd, 256), {}
    for name in backends.split(","):
        plain = pvops(boot, name)
        limit = ["--max-seconds", str(timeout)]
        commands = {"without": [*plain.command, *limit], "with": [*plain.command, *limit, "--ops"]}
        seconds: dict[str, list[float]] = {how: [] for how in commands}
        for _ in range(rounds):
            for how, command in commands.items():
                try:
                    used = measure(command, timeout)
                except CommandError as failure:
                    sys.exit(str(failure))
                if not plain.finished(used.output):
                    sys.exit(f"{name}: the kernel did not power off\n{used.output[-1000:]}")
                seconds[how].append(used.processor_s)
        medians = {how: median(each) for how, each in seconds.items()}
        ratio = medians["with"] / medians["without"]
        figures[name] = {**medians, "ratio": ratio, "aim": AIMS.get(name)}
        shown = f"{name}: {medians['with']:.2f} s with, {medians['without']:.2f} s without: {ratio:.2f} times"
        sys.stderr.write(f"{shown} (aim {AIMS.get(name, 'none')})\n")
    if to:
        text = json.dumps({"schema": "pvops.bench-ops/1", "kernel": kernel.name, "boots": figures}) + "\n"
        sys.stdout.write(text) if to == "-" else Path(to).write_text(text)


if __name__ == "__main__":
    typer.run(main)
