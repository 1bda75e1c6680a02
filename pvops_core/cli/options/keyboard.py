"""Where a guest's console input comes from: a file, or standard input as it is typed."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import attrs

from pvops_core.cli.common import STDOUT
from pvops_core.cli.terminal.person import CLOSED, LEFT
from pvops_core.cli.terminal.raw import is_ours, size_word
from pvops_core.errors import UsageError
from pvops_core.runs.inputfeeder import InputFeeder

STDIN = STDOUT
_MOST = 16 << 20


@attrs.frozen
class Input:
    """What is typed at the console.

    Attributes:
        typed: there from the start.
        feeder: who types while the guest runs, if anybody.
    """

    typed: bytes = b""
    feeder: InputFeeder | None = None

    @property
    def attended(self) -> bool:
        """It is a person at a terminal who types."""
        return self.feeder is not None and os.isatty(self.feeder.descriptor)

    @property
    def broken_off(self) -> bool:
        """That person's terminal was closed, or a signal came, and the run was ended for that."""
        return self.feeder is not None and self.feeder.leaving not in {"", LEFT}

    def sized(self, cmdline: str) -> str:
        """A kernel's command line with the size of that person's terminal, which an init may give to ``stty``."""
        size = size_word(self.feeder.descriptor, cmdline) if self.feeder is not None and self.attended else ""
        return " ".join(filter(None, (cmdline, size)))


def open_input(source: str | None) -> Input:
    """Input from a file, from standard input to its end ("-"), or from standard input as it comes (None).

    Raises:
        UsageError: the file cannot be read, or is none that anybody typed.
    """
    if source == STDIN:
        return Input(_bounded(sys.stdin.buffer.read(_MOST + 1), "standard input"))
    if source is not None:
        try:
            with Path(source).open("rb") as file:
                return Input(_bounded(file.read(_MOST + 1), source))
        except OSError as error:
            raise UsageError(f"{source}: {error.strerror}") from None
    return _standard_input()


def _bounded(data: bytes, name: str) -> bytes:
    if len(data) > _MOST:
        raise UsageError(f"{name}: more than {_MOST >> 20} MiB to be typed")
    return data


def _standard_input() -> Input:
    """A file is there from the start; a terminal or a pipe is read while the guest runs."""
    try:
        descriptor = sys.stdin.fileno()
        mode = os.fstat(descriptor).st_mode
    except (AttributeError, OSError, ValueError):  # closed, or replaced by something that is no file
        return Input()
    if stat.S_ISREG(mode):
        return Input(_bounded(sys.stdin.buffer.read(_MOST + 1), "standard input"))
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return Input(feeder=InputFeeder(descriptor))
    if is_ours(descriptor):
        return Input(feeder=InputFeeder(descriptor, gone=CLOSED))
    return Input()
