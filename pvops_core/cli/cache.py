"""``pvops cache``: the booted kernels that are kept for tests."""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from pvops_core.cli.common import ExitCode, print_table
from pvops_core.errors import HostError, PvopsError, UsageError, printable
from pvops_core.saved.front import read_head
from pvops_core.saved.shelf import DEFAULT_MIB, SIZE, Shelf

_DAY = 86400
cache = typer.Typer(
    name="cache",
    add_completion=False,
    rich_markup_mode=None,
    help="The booted kernels that are kept for tests.\n\nTests with the fixture kernel boot each kernel once and keep "
    f"it, for later runs and other workers. All together take no more than {SIZE} MiB of disk ({DEFAULT_MIB} unless "
    "set; 0 keeps none): what was not used for longest goes.",
    no_args_is_help=True,
)


def _shelf() -> Shelf:
    shelf = Shelf.of(os.environ)
    if shelf is None:
        raise UsageError(f"nothing is kept: {SIZE} is 0, or there is no folder for it (XDG_CACHE_HOME, HOME)")
    return shelf


@cache.command("list")
def list_() -> int:
    """List them, that used longest ago first.

    Shows MiB of disk, when it was last used, backend, CPUs, where it stands, and the kernel's file.

    Exit code: 0 fine, 2 nothing is kept on this machine.
    """
    shelf = _shelf()
    rows = []
    for path, size, used in shelf.files():
        when = datetime.fromtimestamp(used, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
        try:
            head = read_head(path)
            told = [head.key.backends[0], str(head.key.cpus), head.place, head.origin.kernel]
        except (PvopsError, IndexError):
            told = ["", "", "damaged", path.name]
        rows.append([f"{size >> 20}", when, *map(printable, told)])
    if rows:
        print_table(["MiB", "last used", "backend", "CPUs", "stands at", "kernel"], rows)
    sys.stdout.write(f"{shelf.folder}: {sum(size for _path, size, _used in shelf.files()) >> 20} MiB ")
    sys.stdout.write(f"of at most {shelf.limit >> 20}\n")
    return ExitCode.FINE


@cache.command("clear")
def clear(
    older: Annotated[int, typer.Option(min=0, metavar="DAYS", help="Only those not used for so many days.")] = 0,
) -> int:
    """Take them away.

    Exit code: 0 fine, 2 nothing is kept on this machine, 4 a file cannot be taken away.
    """
    shelf = _shelf()
    try:
        number, size = shelf.clear(time.time() - older * _DAY)
    except OSError as failure:
        raise HostError(f"{failure.filename} cannot be taken away: {failure.strerror}") from failure
    sys.stdout.write(f"{number} taken away, {size >> 20} MiB\n")
    return ExitCode.FINE
