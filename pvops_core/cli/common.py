"""What all verbs share: exit codes, output, options, progress."""

from __future__ import annotations

import enum
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pvops_core.errors import ImageError, PvopsError, UsageError, printable

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.records import JsonRecord

STDOUT: Final = "-"


class ExitCode(enum.IntEnum):
    """What a verb's exit code means; 1 is left to uncaught tracebacks."""

    FINE = 0
    USAGE = 2
    """Bad arguments or bad input."""
    NOTHING = 3
    """Nothing ran."""
    FAULT = 4
    """The framework or a plugin failed."""
    DIFFERENCE = 5
    """A difference or a failure was found."""
    CRASH = 6
    """The guest crashed or ran out of time, or the run was broken off."""


JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON; - is standard output.")
]
PluginOption = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin", metavar="PATH", help="Also load the backend of this file, folder or module; may be repeated."
    ),
]


def usage_alone(ctx: typer.Context) -> None:
    """What a verb with verbs of its own does without one of them: it shows its usage, which is no success."""
    if ctx.invoked_subcommand is None:
        sys.stderr.write(ctx.get_help() + "\n")
        raise typer.Exit(ExitCode.USAGE)


def require(extra: str, *modules: str) -> None:
    """Refuse what takes libraries that are not installed with the core alone.

    Raises:
        UsageError: one of them is not there.
    """
    for module in modules:
        if find_spec(module) is None:
            raise UsageError(f"this takes {module}: python -m pip install 'pvops-core[{extra}]'")


def exit_code_of(error: PvopsError) -> ExitCode:
    """The exit code for an error that ends a verb."""
    return ExitCode.USAGE if isinstance(error, (UsageError, ImageError)) else ExitCode.FAULT


def write_json(verb: str, result: JsonRecord, target: str | None) -> None:
    """Write a verb's result under its schema name; nothing without a target.

    Args:
        verb: name of the verb.
        result: what it found.
        target: a path, ``"-"`` for standard output, or None.

    Raises:
        UsageError: the file cannot be written.
    """
    if target is None:
        return
    from pvops_core.records import document  # noqa: PLC0415 - help does without

    text = json.dumps({"schema": f"pvops.{verb}/1", **document(result)}, indent=1) + "\n"
    if target == STDOUT:
        sys.stdout.write(text)
    else:
        write_file(Path(target), text.encode())


def read_file(path: str, most: int = 64 << 20) -> bytes:
    """The bytes of a file or pipe; ``"-"`` is standard input.

    Raises:
        UsageError: it cannot be read, or has more than so many bytes.
    """
    try:
        with Path("/dev/stdin" if path == STDOUT else path).open("rb") as file:
            # One more than it may have tells that it has more.
            data = file.read(most + 1)
    except (OSError, ValueError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else failure
        raise UsageError(f"{path}: cannot be read: {reason}") from failure
    if len(data) > most:
        raise UsageError(f"{path}: has more than {most >> 20} MiB")
    return data


def write_file(path: Path, data: bytes) -> None:
    """Write a file wholly or not at all: into a new one beside it, which then takes its name.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)  # a device or a pipe cannot be renamed over
            return
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            beside.write_bytes(data)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except (OSError, ValueError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else failure
        raise UsageError(f"{path}: cannot be written: {reason}") from failure


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in aligned columns on standard output; numbers to the right."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    numeric = [all(row[column].isdigit() for row in cells) for column in range(len(head))]
    widths = [max([len(name), *(len(row[column]) for row in cells)]) for column, name in enumerate(head)]
    for row in (list(head), *cells):
        line = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        sys.stdout.write("  ".join(line).rstrip() + "\n")


@contextmanager
def progress(label: str) -> Iterator[None]:
    """Show on standard error what is going on, where that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it, and it is slow to import

    with Console(stderr=True).status(label):
        yield


KernelOption = Annotated[
    Path | None, typer.Option("--kernel", metavar="KERNEL", help="Kernel that a module is loaded into.")
]


def load_subject(path: Path, kernel: Path | None) -> KernelImage:
    """A kernel, or a module linked to its kernel.

    Raises:
        ImageError: a file cannot be read or is damaged.
        UsageError: a module without a kernel, or a kernel with one.
    """
    from pvops_core.images import load_image  # noqa: PLC0415 - heavy
    from pvops_core.images.module import link_module, looks_like_module  # noqa: PLC0415

    if not looks_like_module(path):
        if kernel is not None:
            raise UsageError(f"{path} is no module: --kernel says which kernel a module is loaded into")
        return load_image(path)
    if kernel is None:
        raise UsageError(f"{path} is a module: say with --kernel which kernel it is loaded into")
    return link_module(path, load_image(kernel))


def symbol_json(image: KernelImage, address: int) -> str:
    """An address as ``symbol+0xoffset``; empty where no symbol is below it."""
    found = image.symbol_at(address)
    if found is None:
        return ""
    name, distance = found
    return f"{name}+{distance:#x}" if distance else name
