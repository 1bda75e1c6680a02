"""What the verbs that run guests share: their options, plugins, layouts, and how to write the command again."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pvops_core.cli import ALL_OPS
from pvops_core.cli.common import STDOUT
from pvops_core.errors import UsageError, printable, shortened
from pvops_core.gdb.orders import DebugOrders
from pvops_core.runs.workloads import WORKLOADS, tasks_of, written

if TYPE_CHECKING:
    from pvops_core.backends import Loaded
    from pvops_core.errors import PluginError
    from pvops_core.kinds import MachineKind

MOST_MEMORY: Final = 1 << 20
"""A machine's physical addresses have 40 bits."""
DEFAULT_MAX_SECONDS: Final = 120.0
CpusOption = Annotated[int, typer.Option(min=1, max=128, metavar="N", help="Virtual CPUs.")]
SeedOption = Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the run: the same seed gives the same run.")]
MemoryOption = Annotated[int, typer.Option(min=1, max=MOST_MEMORY, metavar="MIB", help="Guest memory in MiB.")]
MaxSecondsOption = Annotated[
    float,
    typer.Option(
        min=0.001,
        metavar="S",
        help="Seconds of wall time, from its first instruction, after which a guest is given up.",
    ),
]
OfferedSecondsOption = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        metavar="S",
        help="Seconds of wall time, from its first instruction, after which a guest is given up: "
        f"{DEFAULT_MAX_SECONDS:.0f} if not given, and never where somebody types at a terminal.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Setting of the backend's platform, as `pvops backends --check` lists them; may be repeated.",
    ),
]
OpsOption = Annotated[
    str,
    typer.Option(
        "--ops",
        "--python-ops",
        metavar="[OP,...]",
        help="Let the backend's own hooks serve a kernel's ops, in Python, in place of the kernel's functions: those "
        "named, such as mmu.write_cr3,irq.*, or all of them. Ops that share state come together. What an op leaves to "
        "the kernel's function is told.",
    ),
]
SwitchOption = Annotated[
    list[str] | None,
    typer.Option(
        "--switch",
        metavar="OP=WHAT[@PLACE]",
        help="Give an op another implementation while the guest runs; may be repeated. OP is an op, or a set such as "
        "'irq.*'. WHAT is a backend, kernel for a real kernel's own function, kernel:SYMBOL for another of its "
        "functions, or MODULE:FUNCTION or FILE.py:FUNCTION. PLACE is a function of the guest's, SYMBOL+OFFSET, an "
        "address, a named point of its boot, or a virtual time "
        "such as 2ms; before the first instruction if not given.",
    ),
]
WorkloadOption = Annotated[
    str,
    typer.Option(
        metavar="NAME[:ROUNDS],...",
        help="Have the kernel's first process make rounds of these, 100 of each unless said, and tell what one round "
        f"takes: {', '.join(WORKLOADS)}.",
    ),
]
PythonOpsOption = Annotated[
    str,
    typer.Option(
        "--python-ops",
        metavar="[OP,...]",
        help="Let each backend's own hooks serve the kernel's ops, those named or all, as --ops of `pvops boot`.",
    ),
]
GdbOption = Annotated[
    str | None,
    typer.Option(
        metavar="[HOST:]PORT",
        help="Let a debugger come: `gdb -ex 'target remote :PORT'`. vCPUs are its threads; `monitor help` lists "
        "commands of its own. The guest ends as it would without. Only this machine's programs can come unless HOST "
        "says otherwise; port 0 is one that is free, and is told.",
    ),
]
WaitOption = Annotated[bool, typer.Option("--wait", help="With --gdb: wait for the debugger before anything is run.")]
PdbOption = Annotated[
    bool,
    typer.Option("--pdb", help="Open a Python prompt, as `pvops shell` has, where a hook fails or the guest crashes."),
]
EventsOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the event log, one JSON object a line.")]
DEFAULT_MEMORY = 16


def load(plugins: Sequence[str]) -> Loaded:
    """All backends; those that cannot be loaded are told of on standard error."""
    from pvops_core.backends import load_backends  # noqa: PLC0415 - heavy

    loaded = load_backends(plugins=plugins)
    for error in loaded.errors:
        complain(error)
    tell(loaded)
    return loaded


def tell(loaded: Loaded) -> None:
    """Say on standard error what the good plugins declare without effect."""
    for note in loaded.notes:
        sys.stderr.write(f"pvops: note: {printable(shortened(str(note)))}\n")


def complain(error: PluginError) -> None:
    """Name a broken plugin on standard error."""
    sys.stderr.write(f"pvops: broken plugin: {printable(shortened(str(error)))}\n")


def broken_names(loaded: Loaded) -> set[str]:
    """Names of the backends that are there but could not be loaded."""
    names_of_broken = {re.split("[=:]", error.entry_point)[0].strip() for error in loaded.errors}
    return names_of_broken - loaded.backends.keys()


def broken_paths(loaded: Loaded, plugins: Sequence[str]) -> bool:
    """Whether a plugin given by path could not be loaded."""
    from pvops_core.backends.finding.discovery import GROUP  # noqa: PLC0415 - most commands are given no plugin
    from pvops_core.backends.finding.paths import plugins_at  # noqa: PLC0415

    given = {found.key for text in plugins for found in plugins_at(text, GROUP)}
    return not given.isdisjoint(loaded.broken)


def are_broken(loaded: Loaded, plugins: Sequence[str], backend: str) -> bool:
    """Whether the backend, or a plugin given by path, could not be loaded: every verb then ends with ``FAULT``."""
    return backend in broken_names(loaded) or broken_paths(loaded, plugins)


def check_folders(*files: str | Path | None) -> None:
    """Refuse files that could not be written once the runs are over.

    Raises:
        UsageError: a file's folder is not there, the file is a folder itself, or its name can be none.
    """
    for file in files:
        if file is None or str(file) == STDOUT:
            continue
        try:
            if not Path(file).absolute().parent.is_dir():
                raise UsageError(f"{file}: its folder does not exist")
            if Path(file).is_dir():
                raise UsageError(f"{file}: is a folder")
        except (OSError, ValueError) as failure:  # a name too long, one with a zero byte
            reason = failure.strerror if isinstance(failure, OSError) else failure
            raise UsageError(f"{file}: cannot be written: {reason}") from failure


def builtin_layouts() -> dict[str, MachineKind]:
    """Each layout that a built-in guest was made for, with its machine kind; the widest machines first."""
    from pvops_core import guests, ops  # noqa: PLC0415 - heavy

    kinds = {name: ops.LAYOUTS[name].kind for name in guests.LAYOUTS}
    return dict(sorted(kinds.items(), key=lambda item: -item[1].bits))


def debug_orders(place: str | None, *, wait: bool) -> DebugOrders | None:
    """What the options ask for.

    Raises:
        UsageError: ``--gdb`` has no port, or there is ``--wait`` alone.
    """
    if place is None:
        if wait:
            raise UsageError("--wait waits for a debugger: say where with --gdb PORT")
        return None
    return DebugOrders.parse(place, wait=wait)


def workloads(text: str) -> str:
    """The workloads that the option names, each with its rounds; UsageError as of ``tasks_of``."""
    return written(tasks_of(text))


def ops_patterns(text: str) -> tuple[str, ...] | None:
    """What ``--ops`` means: patterns, none for all ops; None where it was not given."""
    if not text:
        return None
    return () if ALL_OPS in (found := names(text)) else tuple(found)


def names(text: str) -> list[str]:
    """The names in a list parted by commas."""
    return [name for name in (part.strip() for part in text.split(",")) if name]
