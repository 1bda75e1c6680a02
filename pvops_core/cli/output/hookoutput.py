"""Where what hooks print and log goes: to standard error, or to a file that was asked for."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import attrs
import typer

from pvops_core.errors import UsageError, printable

if TYPE_CHECKING:
    from pvops_core.runs.cell import Cell
    from pvops_core.runs.wire import Said

HookOutputOption = Annotated[
    Path | None,
    typer.Option(
        "--hook-output",
        metavar="FILE",
        help="Write there what hooks print and log while the guest runs; to standard error if not given.",
    ),
]


@attrs.frozen
class HookOutput:
    """Writes each line, with backend, op, vCPU and virtual time in front.

    Attributes:
        target: where it is written; None for standard error, whatever that is then.
        several: runs go on side by side, so that each line names its own.
    """

    target: TextIO | None = None
    several: bool = False

    def said(self, cell: Cell, said: Said) -> None:
        """Write a line."""
        front = f"{cell.title}: " if self.several else ""
        target = self.target or sys.stderr
        target.write(f"{front}{printable(str(said))}\n")
        target.flush()


@contextmanager
def heard(file: Path | None, *, several: bool = False) -> Iterator[HookOutput]:
    """What to give ``execute`` as its ``on_said``, while runs go on.

    Raises:
        UsageError: the file cannot be written.
    """
    if file is None:
        yield HookOutput(several=several)
        return
    try:
        with file.open("w", encoding="utf-8") as target:
            yield HookOutput(target, several)
    except OSError as error:
        raise UsageError(f"{file}: cannot be written: {error.strerror}") from error


@contextmanager
def terminal() -> Iterator[tuple[int, int] | None]:
    """Descriptors for a debugger: standard input, and standard error to write to; None where one is not open.

    They are copies, which a worker is given under the same numbers.
    """
    with contextlib.ExitStack() as stack:
        copies: tuple[int, int] | None = None
        with contextlib.suppress(OSError, ValueError, AttributeError):
            reading, writing = os.dup(sys.stdin.fileno()), os.dup(2)
            stack.callback(os.close, reading)
            stack.callback(os.close, writing)
            copies = reading, writing
        yield copies
