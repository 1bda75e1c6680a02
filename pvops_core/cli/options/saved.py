"""``--save`` and ``--load``: a boot that is written to a file at a place, and one that goes on from there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pvops_core.cli.options.ramdisks import ramdisk
from pvops_core.errors import UsageError
from pvops_core.kinds import MachineKind
from pvops_core.runs.cell import Cell
from pvops_core.saved.errors import SavedError

if TYPE_CHECKING:
    from collections.abc import Mapping

SaveOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write the machine to this file where the run ends by --stop-at or --until; --load goes on from there.",
    ),
]
LoadOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Go on from a file that --save has written, in milliseconds. Backend, kernel, ramdisk, command line, "
        "settings, CPUs, memory and seed are those of the file; a KERNEL or --initrd says where they are now.",
    ),
]


def check_save(save: Path | None, stop_at: str, until: str, workload: str) -> None:
    """Refuse to save where no place is said, or in the midst of rounds.

    Raises:
        UsageError: there is none, or a workload.
    """
    if save is not None and workload:
        raise UsageError("--workload goes without --save: what its rounds take is counted from mark to mark in one run")
    if save is not None and not (stop_at or until):
        raise UsageError("--save writes the machine where --stop-at or --until ends the run: give one of them")


def loaded_cell(file: Path, kernel: Path | None, initrd: str, given: Mapping[str, tuple[object, object]]) -> Cell:
    """The run that a file is of.

    Args:
        file: the file.
        kernel: where its kernel is now; None for where it was.
        initrd: the same of its ramdisk; empty for where it was.
        given: by option, what was given of what the file says, and what it is if nothing was.

    Raises:
        SavedError: it is no saved session of a kernel.
        UsageError: something was given that the file says.
    """
    from pvops_core.saved.front import read_head  # noqa: PLC0415 - seldom wanted

    for option, (value, default) in given.items():
        if value != default:
            raise UsageError(f"--load goes on with what the file says: --{option} cannot be given with it")
    head = read_head(file)
    key, origin = head.key, head.origin
    if key.guest.startswith("builtin") or not key.backends:
        raise SavedError("is no kernel's; Session.load goes on from it", str(file), field="guest")
    try:
        kind = MachineKind(key.machine)
        return Cell(
            key.backends[0],
            "",
            kind,
            guest=str(kernel or origin.kernel),
            initrd=ramdisk(initrd, kind) or (origin.initrd if key.initrd else ""),
            workload=key.cmdline,
            seed=key.seed,
            vcpus=key.cpus,
            memory=origin.memory,
            count_instructions=key.counted,
            options=origin.options,
        )
    except ValueError as failure:
        raise SavedError(f"is of no machine: {failure}", str(file), field="machine") from failure
