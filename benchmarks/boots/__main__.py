"""``python -m benchmarks.boots``: boot a kernel here and in QEMU, turn about, and compare."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from statistics import median
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.boots.contestants import CONSOLES, QEMU, QEMU_PACKAGE, Booted, Contestant, pvops, qemu
from benchmarks.boots.usage import CommandError, Usage, measure

FOLDER = Path(os.environ.get("PVOPS_KERNELS", "../shared/kernels"))
KERNEL, INITRD = "vmlinuz-6.1.0-56-cloud-amd64", "initramfs.cpio.gz"
MIB = 1 << 20
ROOM_MIB = 400
AIMS = {"native": 2.5, "xen": 3.0}
"""How many times QEMU's wall time we want at most."""


def main(
    *,
    kernel: Annotated[Path, typer.Option(help="The kernel.")] = FOLDER / KERNEL,
    initrd: Annotated[Path, typer.Option(help="Its ramdisk; its init must power the machine off.")] = FOLDER / INITRD,
    backends: Annotated[str, typer.Option(help="Our platforms, parted by commas.")] = "native,xen",
    words: Annotated[str, typer.Option(help="More words for the kernel's command line.")] = "",
    memory: Annotated[int, typer.Option(help="The guest's memory in MiB.")] = 256,
    rounds: Annotated[int, typer.Option(help="How often each boots; the medians are compared.")] = 3,
    timeout: Annotated[float, typer.Option(help="Seconds that one boot may take.")] = 300,
    share: Annotated[bool, typer.Option(help="One boot more of each of ours, to show the engine's share.")] = True,
    to: Annotated[str | None, typer.Option("--json", help="Write the figures as JSON; - for standard output.")] = None,
) -> None:
    """Boot a kernel to power-off on our platforms and in QEMU (TCG, bare metal), turn about, and print the medians."""
    boot = Booted(kernel, initrd, memory, words)
    for file in (kernel, initrd):
        if not file.is_file():
            sys.exit(f"{file}: no such file; set PVOPS_KERNELS to a folder that has it, or name it")
    contestants = {name: pvops(boot, name) for name in backends.split(",")}
    reference = qemu(boot)
    if reference is None:
        sys.stderr.write(f"{QEMU} is not installed (Debian package {QEMU_PACKAGE}): there is nothing to compare with\n")
    else:
        contestants = {"qemu": reference} | contestants
    try:
        runs = _turn_about(contestants, rounds, timeout)
        shares = {name: _share(boot, name, timeout) for name in contestants if name != "qemu"} if share else {}
    except CommandError as failure:
        sys.exit(str(failure))
    figures = {name: _figures(name, used, runs.get("qemu"), memory) for name, used in runs.items()}
    for name, found in shares.items():
        figures[name]["share"] = found
    _print(figures, rounds, sys.stderr if to == "-" else sys.stdout)
    if to:
        text = json.dumps(
            {"schema": "pvops.bench-boot/1", "kernel": kernel.name, "memory_mib": memory, "boots": figures}
        )
        sys.stdout.write(text + "\n") if to == "-" else Path(to).write_text(text + "\n")


def _turn_about(contestants: dict[str, Contestant], rounds: int, timeout: float) -> dict[str, list[Usage]]:
    """Each boots once a round, so that what else the machine does falls on all."""
    runs: dict[str, list[Usage]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            used = measure(contestant.command, timeout)
            if not contestant.finished(used.output):
                raise CommandError(f"{name}: the kernel did not power off\n{used.output[-1000:]}")
            runs[name].append(used)
    return runs


def _share(boot: Booted, backend: str, timeout: float) -> dict[str, Any]:
    """Where one boot's time goes; see ``engine_share``."""
    words = boot.command_line(CONSOLES.get(backend, CONSOLES["native"]))
    arguments = [backend, str(boot.kernel), str(boot.initrd), str(boot.memory), words]
    used = measure([sys.executable, "-m", "benchmarks.boots.engine_share", *arguments], timeout)
    found: dict[str, Any] = json.loads(used.output.splitlines()[-1])
    return found


def _figures(name: str, runs: list[Usage], reference: list[Usage] | None, memory: int) -> dict[str, Any]:
    wall, processor = median(run.wall_s for run in runs), median(run.processor_s for run in runs)
    peak = max(run.memory for run in runs) / MIB
    found: dict[str, Any] = {"wall_s": wall, "processor_s": processor, "memory_mib": peak}
    if name != "qemu":
        found["memory_met"] = peak <= memory + ROOM_MIB
    if name != "qemu" and reference:
        found["wall_ratio"] = wall / median(run.wall_s for run in reference)
        found["processor_ratio"] = processor / median(run.processor_s for run in reference)
        found["aim"] = AIMS.get(name)
    return found


def _print(figures: dict[str, dict[str, Any]], rounds: int, to: TextIO) -> None:
    console = Console(file=to, width=None if to.isatty() else 150)
    table = Table(title="boots to power-off", caption=f"medians of {rounds}; memory: peaks of all processes added up")
    for heading in ("who", "wall s", "ratio", "processor s", "ratio", "aim", "memory MiB", "engine s", "handlers s"):
        table.add_column(heading, justify="right")
    for name, found in figures.items():
        share = found.get("share", {})
        cells = (
            *(found.get(key) for key in ("wall_s", "wall_ratio", "processor_s", "processor_ratio", "aim")),
            found["memory_mib"],
            *(share.get(key) for key in ("engine_s", "handlers_s")),
        )
        table.add_row(name, *("" if cell is None else f"{cell:.4g}" for cell in cells))
    console.print(table)
    for name, found in figures.items():
        for handler, cost in found.get("share", {}).get("handlers", {}).items():
            console.print(f"{name}: {handler:24} {cost['calls']:9,} calls {cost['s']:8.3f} s")


if __name__ == "__main__":
    typer.run(main)
