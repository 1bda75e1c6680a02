"""``--dump-at`` and ``--dump-on``: the guest's memory in files that debuggers open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pvops_core.cli.common import ExitCode
from pvops_core.errors import unknown
from pvops_core.runs.orders import DumpOrder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvops_core.runs.orders import DumpDone

DumpAtOption = Annotated[
    tuple[str, Path] | None,
    typer.Option(
        "--dump-at",
        metavar="PLACE FILE",
        help="Write the memory of a 64-bit kernel to FILE when it first comes to PLACE, which is as for --stop-at, and "
        "let it go on. The file is a vmcore, as kdump writes them, for drgn and crash.",
    ),
]
ENDS: Final = ("crash", "timeout", "until", "poweroff", "reboot", "halted")
DumpOnOption = Annotated[
    tuple[str, Path] | None,
    typer.Option(
        "--dump-on",
        metavar="END FILE",
        help=f"Write the same when the run ends so: {', '.join(ENDS)}. A kernel that panics is written where it would "
        "start kdump, its last words in its log.",
    ),
]


def orders(at: tuple[str, Path] | None, on: tuple[str, Path] | None) -> tuple[DumpOrder, ...]:
    """What the options ask for.

    Raises:
        UsageError: a run cannot end so.
    """
    if on is not None and on[0] not in ENDS:
        raise unknown("end of a run", on[0], ENDS)
    there = [DumpOrder(str(at[1].absolute()), place=at[0])] if at else []
    return (*there, DumpOrder(str(on[1].absolute()), outcome=on[0])) if on else tuple(there)


def lines(dumps: tuple[DumpDone, ...]) -> Iterator[str]:
    """What is told of them at the end of a run."""
    for each in dumps:
        if each.made:
            info = "" if each.own_info else ", with VMCOREINFO made of symbols: the kernel had none yet"
            yield f"{'dump':<20}{each.file}, at {each.virtual_ns / 1e9:.6f} s{info}"
        elif each.refused:
            yield f"{'dump refused':<20}{each.file}: {each.refused}"
        elif each.place:
            yield f"{'dump not made':<20}{each.file}: the guest did not come to {each.place}"


def exit_code(dumps: tuple[DumpDone, ...]) -> int:
    """4 where one could not be written, 2 where its place was not met; one for an end that was another is none."""
    if any(each.refused for each in dumps):
        return ExitCode.FAULT
    missed = any(each.place and not each.made for each in dumps)
    return ExitCode.USAGE if missed else ExitCode.FINE
