"""What plugins say in a worker, line by line to its parent: prints, standard error, logging, warnings."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from typing import TYPE_CHECKING, Final

from pvops_core.errors import UsageError
from pvops_core.runs.wire import MARK, Said
from pvops_core.switchboard.speaking import Speaker, speaker

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine import Machine

LEVEL: Final = "PVOPS_LOG"
"""Environment variable: the least level of logging that is shown, such as ``debug``; ``info`` unless it is set."""
LONGEST: Final = 1 << 16
"""Characters of a line; more is parted."""


class PluginOutput:
    """The standard streams of a worker, once its plugins are loaded.

    Args:
        send: tells the parent.
    """

    def __init__(self, send: Callable[[Said], None]) -> None:
        self.send = send
        self.machine: Machine | None = None
        self._streams: tuple[_Stream, ...] = ()

    def open(self) -> None:
        """From now on what is said is told.

        Raises:
            UsageError: there is no such level.
        """
        level = os.environ.get(LEVEL, "").upper() or "INFO"
        if level not in logging.getLevelNamesMapping():
            raise UsageError(f"{LEVEL}: {os.environ[LEVEL]!r} is no level of logging")
        # A plugin that was loaded may have closed them, or put anything there.
        with contextlib.suppress(AttributeError, ValueError, OSError):
            sys.stderr.flush()
        with contextlib.suppress(OSError):
            os.write(2, MARK)
        self._streams = _Stream(self, "stdout"), _Stream(self, "stderr"), _Stream(self, "log")
        sys.stdout, sys.stderr, log = self._streams
        if not logging.root.handlers:  # an author who has set up logging gets it so
            handler = logging.StreamHandler(log)
            handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
            logging.root.addHandler(handler)
            logging.root.setLevel(level)

    def close(self) -> None:
        """Tell the last line, even if it has no end."""
        for stream in self._streams:
            stream.finish()

    def say(self, stream: str, who: Speaker, text: str) -> None:
        """Tell the parent a line."""
        ns = self.machine.clock.ns if who.ns is None and self.machine is not None else who.ns
        self.send(Said(text, stream, who.name, who.vcpu, ns))


class _Stream(io.TextIOBase):
    """A text stream whose lines are told, each with who began it."""

    encoding, errors = "utf-8", "backslashreplace"

    def __init__(self, output: PluginOutput, name: str) -> None:
        self._output, self.name = output, name
        self._line, self._who = "", Speaker("")

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def write(self, text: str) -> int:
        who = speaker()
        if self._line and who != self._who:
            self._end()
        if not self._line:
            self._who = who
        *lines, rest = (self._line + text).split("\n")
        for line in lines:
            self._line = line
            self._end()
            self._who = who
        self._line = rest
        if len(rest) > LONGEST:
            self._end()
        return len(text)

    def flush(self) -> None:
        """A line's end is waited for, as for a terminal; the last one comes at the end of the run."""

    def _end(self) -> None:
        line, self._line = self._line, ""
        for start in range(0, max(1, len(line)), LONGEST):
            self._output.say(self.name, self._who, line[start : start + LONGEST])

    def finish(self) -> None:
        """Tell what is left of a line."""
        if self._line:
            self._end()
