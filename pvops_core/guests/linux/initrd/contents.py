"""What lies in a ramdisk: busybox, the first process's program, device nodes, and what the user adds."""

from __future__ import annotations

import gzip
import io
import stat
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from pvops_core.errors import ImageError, UsageError
from pvops_core.images.cpio import Entry, archive
from pvops_core.images.program import read_program
from pvops_core.images.reading import read_file

if TYPE_CHECKING:
    from pvops_core.guests.linux.initrd.busybox import Busybox

_INIT: Final = "init"
"""What the kernel runs first of a ramdisk (init/main.c: ramdisk_execute_command)."""
_RESIZE: Final = "resize"
"""A program for the shell, beside this module."""
_SCRIPT: Final = "script"
"""What :file:`init` beside this module runs before it gives a shell."""
_FOLDERS: Final = ("proc", "sys", "dev", "tmp")
_NODES: Final = (
    *(("console", 5, 1), ("tty", 5, 0), ("null", 1, 3), ("zero", 1, 5)),
    *(("tty0", 4, 0), ("ttyS0", 4, 64), ("hvc0", 229, 0)),
)
"""Devices by major and minor number (Documentation/admin-guide/devices.txt): the first is opened for the first process,
and kernels without devtmpfs have no others."""
_LONGEST_LINE: Final = 256
"""Most bytes of a script's first line that kernels read (BINPRM_BUF_SIZE; half of it before 5.1)."""


@cache
def shell_init() -> bytes:
    """The program that gives a shell."""
    return Path(__file__).with_name(_INIT).read_bytes()


@cache
def resize_program() -> bytes:
    """The program that gives a terminal's driver the size that the terminal has."""
    return Path(__file__).with_name(_RESIZE).read_bytes()


def contents(
    busybox: Busybox, added: tuple[Entry, ...] = (), init: bytes | None = None, *, shell: bool = False
) -> tuple[Entry, ...]:
    """The files of a ramdisk.

    Args:
        busybox: its programs.
        added: more files.
        init: the first process's program; None for one that gives a shell on the console.
        shell: that one runs ``init`` first and then gives a shell.

    Raises:
        UsageError: ``init`` could not be started.
    """
    first = shell_init() if init is None or shell else init
    script = [Entry.file(_SCRIPT, init, 0o755)] if init is not None and shell else []
    entries = (
        Entry.file(_INIT, first, 0o755),
        *script,
        Entry.file("bin/busybox", busybox.data, 0o755),
        Entry.link("bin/sh", "busybox"),
        Entry.file(f"bin/{_RESIZE}", resize_program(), 0o755),
        *(Entry.folder(name) for name in _FOLDERS),
        *(Entry.character_device(f"dev/{name}", major, minor) for name, major, minor in _NODES),
        *added,
    )
    if init is not None:
        _check_init(init, {entry.name for entry in entries})
    return entries


def packed(entries: tuple[Entry, ...]) -> bytes:
    """The ramdisk: an archive, packed by gzip, without a time or name, so that equal files make equal bytes.

    Raises:
        UsageError: two files have one name, or one cannot be told in such an archive.
    """
    try:
        whole = archive(entries)
    except ImageError as failure:
        raise UsageError(f"/{failure.field} {failure.message}") from failure
    made = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=made, mtime=0) as stream:
        stream.write(whole)
    return made.getvalue()


def read_added(text: str) -> Entry:
    """The file that ``HOST:GUEST`` stands for; it may be executed if its owner may do so here.

    GUEST begins with a slash; with one at its end too it is a folder, and the file keeps its name.

    Raises:
        UsageError: it is not of that form.
        ImageError: the file cannot be read, or is no file.
    """
    host, colon, guest = text.rpartition(":/")
    if not colon or not host:
        raise UsageError(f"--add {text}: say HOST:GUEST, a file here and its absolute path there (prog:/bin/prog)")
    path = Path(host)
    name = guest + path.name if not guest or guest.endswith("/") else guest
    if name != str(PurePosixPath(name)) or ".." in PurePosixPath(name).parts:
        raise UsageError(f"--add {text}: /{guest} is no plain path: leave out empty parts, . and ..")
    data = read_regular(path)
    executable = path.stat().st_mode & stat.S_IXUSR
    return Entry.file(name, data, 0o755 if executable else 0o644)


def read_regular(path: Path) -> bytes:
    """The bytes of a file that goes into a ramdisk.

    Raises:
        ImageError: it is a folder, or cannot be read.
    """
    if path.is_dir():
        raise ImageError("is a folder: add its files one by one", str(path))
    return read_file(path, str(path))


def _check_init(init: bytes, there: set[str]) -> None:
    """Refuse what the kernel would not start: it would panic, and say error -8 or -2 at most."""
    if not init.startswith(b"#!"):
        try:
            needs = read_program(init, "--init").interpreter
        except ImageError as failure:
            raise UsageError(f"--init is neither a script that begins with #! nor a program: {failure}") from failure
    else:
        line = init[2:_LONGEST_LINE].partition(b"\n")[0].replace(b"\t", b" ").strip(b" ")
        needs = line.partition(b" ")[0].decode(errors="surrogateescape")
        if not needs.startswith("/"):
            raise UsageError("--init begins with #! and no absolute path behind it: begin with #!/bin/sh")
    if needs and needs.removeprefix("/") not in there:
        raise UsageError(f"--init needs {needs!r}, which is not in the ramdisk: --add it, or begin with #!/bin/sh")
