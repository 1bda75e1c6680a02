"""``pvops initrd``: an initial ramdisk with a shell."""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from pvops_core.cli.common import STDOUT, ExitCode, JsonOption, write_file, write_json
from pvops_core.cli.options.runoptions import check_folders
from pvops_core.errors import UsageError, printable
from pvops_core.guests.linux.initrd.findings import ArchivedFile, InitrdResult


class Arch(enum.Enum):
    """What a ramdisk's programs are for."""

    X86_64 = "x86_64"
    I386 = "i386"


def initrd(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write.")],
    shell: Annotated[
        bool,
        typer.Option(
            "--shell", help="Give a shell on the console, as without --init; with --init, after that has been run."
        ),
    ] = False,
    add: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:GUEST",
            help="Put a file of this machine there under this absolute path, or into it if it ends in a slash; may be "
            "repeated.",
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(metavar="SCRIPT", help="Script or program that the kernel starts, not a shell."),
    ] = None,
    arch: Annotated[Arch, typer.Option(help="What the kernel is for.")] = Arch.X86_64,
    busybox: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Static busybox to put there; unless given, the first of PATH that will do."),
    ] = None,
    json: JsonOption = None,
) -> int:
    """Make an initial ramdisk with a shell.

    It holds a static busybox of this machine, as /bin/busybox and /bin/sh, and an /init that mounts /proc, /sys and
    /dev, gives the console the size that pvops.size=ROWSxCOLS of the kernel's command line says, gives a shell on the
    console, with job control, and powers the machine off when that ends. Busybox's other programs are in /bin from then
    on.

    Equal files make equal bytes: no time, owner or order of this machine's is in them.

    Exit code: 0 made, 2 there is no such busybox, or a file cannot be read or put there.
    """
    from pvops_core.guests.linux.initrd.busybox import find_busybox, read_busybox  # noqa: PLC0415 - reads ELF files
    from pvops_core.guests.linux.initrd.contents import contents, packed, read_added, read_regular  # noqa: PLC0415

    check_folders(output, json)
    found = read_busybox(busybox, arch.value) if busybox else find_busybox(arch.value, os.environ)
    _refuse_input(output, (found.path, str(init or ""), *(text.rpartition(":/")[0] for text in add or ())))
    program = read_regular(init) if init is not None else None
    entries = contents(found, tuple(map(read_added, add or ())), program, shell=shell)
    data = packed(entries)
    write_file(output, data)
    result = InitrdResult(
        initrd=str(output),
        sha256=sha256(data).hexdigest(),
        bytes=len(data),
        machine=arch.value,
        busybox=found.path,
        files=tuple(ArchivedFile(f"/{each.name}", each.mode, len(each.data)) for each in entries),
    )
    write_json("initrd", result, json)
    if json != STDOUT:
        made = f"{result.initrd}: {result.bytes:,} bytes for {result.machine} kernels, with {result.busybox}"
        sys.stdout.write(f"{printable(made)}\n")
    return ExitCode.FINE


def _refuse_input(output: Path, files: Iterable[str]) -> None:
    """Refuse to write over what goes into the ramdisk."""
    for each in filter(None, files):
        if output.exists() and Path(each).exists() and output.samefile(each):
            raise UsageError(f"--output {output} is one of the files that go into it")
