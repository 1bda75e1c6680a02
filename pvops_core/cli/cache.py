"""``pvops cache``: the booted kernels that are kept for tests."""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pvops_core.cli.common import STDOUT, ExitCode, JsonOption, print_table, usage_alone, write_json
from pvops_core.errors import HostError, PvopsError, UsageError
from pvops_core.kept import KINDS, files_of
from pvops_core.saved.findings import CacheCleared, CacheList, KeptKind, KeptSession
from pvops_core.saved.front import read_head
from pvops_core.saved.shelf import DEFAULT_MIB, SIZE, Shelf

_DAY = 86400
cache = typer.Typer(
    name="cache",
    add_completion=False,
    rich_markup_mode=None,
    help="List or clear what is kept of boots.\n\nTests with the fixture kernel boot each kernel once and keep "
    f"it, for later runs and other workers. All together take no more than {SIZE} MiB of disk ({DEFAULT_MIB} unless "
    "set; 0 keeps none): what was not used for longest goes.\n\nBeside them is what takes long to make and follows "
    "from kernels and sources alone: some files of each kind.",
    invoke_without_command=True,
    callback=usage_alone,
)


def _shelf() -> Shelf:
    shelf = Shelf.of(os.environ)
    if shelf is None:
        raise UsageError(f"nothing is kept: {SIZE} is 0, or there is no folder for it (XDG_CACHE_HOME, HOME)")
    return shelf


@cache.command("list")
def list_(*, json: JsonOption = None) -> int:
    """List them, that used longest ago first.

    Shows MiB of disk, when it was last used, backend, CPUs, where it stands, and the kernel's file; then how much of
    each other kind is kept.

    Exit code: 0 fine, 2 nothing is kept on this machine.
    """
    shelf = _shelf()
    kept = tuple(_told(*each) for each in shelf.files())
    others = tuple(_kind(name) for name in KINDS)
    write_json("cache", CacheList(str(shelf.folder), shelf.limit, kept, others), json)
    if json == STDOUT:
        return ExitCode.FINE
    if kept:
        print_table(["MiB", "last used", "backend", "CPUs", "stands at", "kernel"], map(_row, kept))
    taken = sum(each.bytes for each in kept) >> 20
    sys.stdout.write(f"{shelf.folder}: {taken} MiB of at most {shelf.limit >> 20}\n\n")
    print_table(["KiB", "files", "of"], [(each.bytes >> 10, each.files, each.meaning) for each in others])
    return ExitCode.FINE


def _kind(name: str) -> KeptKind:
    sizes = [state.st_blocks * 512 for _file, state in files_of(name, os.environ)]
    return KeptKind(name, KINDS[name], len(sizes), sum(sizes))


def _told(path: Path, size: int, used: float) -> KeptSession:
    try:
        head = read_head(path)
    except PvopsError:
        return KeptSession(str(path), size, int(used))
    backend = next(iter(head.key.backends), "")
    return KeptSession(str(path), size, int(used), backend, head.key.cpus, head.place, head.origin.kernel)


def _row(kept: KeptSession) -> tuple[object, ...]:
    when = datetime.fromtimestamp(kept.used, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
    if not kept.backend:
        return kept.bytes >> 20, when, "", "", "damaged", Path(kept.path).name
    return kept.bytes >> 20, when, kept.backend, kept.vcpus, kept.place, kept.kernel


@cache.command("clear")
def clear(
    older: Annotated[int, typer.Option(min=0, metavar="DAYS", help="Only those not used for so many days.")] = 0,
    *,
    json: JsonOption = None,
) -> int:
    """Take them away.

    Exit code: 0 fine, 2 nothing is kept on this machine, 4 a file cannot be taken away.
    """
    shelf, before = _shelf(), time.time() - older * _DAY
    try:
        number, size = shelf.clear(before)
        others = [each for name in KINDS for each in files_of(name, os.environ) if each[1].st_mtime <= before]
        for file, _state in others:
            file.unlink(missing_ok=True)
    except OSError as failure:
        raise HostError(f"{failure.filename} cannot be taken away: {failure.strerror}") from failure
    size += sum(state.st_blocks * 512 for _file, state in others)
    write_json("cache", CacheCleared(number, size, len(others)), json)
    if json != STDOUT:
        sys.stdout.write(f"{number} taken away, and {len(others)} files of other kinds: {size >> 20} MiB\n")
    return ExitCode.FINE
