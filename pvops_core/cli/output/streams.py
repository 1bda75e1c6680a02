"""Standard output and error as the process was given them: closed, full, or read by someone who has had enough."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import TextIO


def prepare() -> None:
    """Make both usable: one that was closed wants to read nothing, one that lacks a letter gets its escape."""
    if sys.stdout is None:
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # not what a test put there
            stream.reconfigure(errors="backslashreplace")


def stop_writing() -> None:
    """Drop what is still to be written, so that Python's own flush at exit does not fail again."""
    sys.stdout = _nowhere()
    if sys.__stdout__ is not None:
        # What the old stream still holds is flushed at exit, into a descriptor that leads nowhere by then.
        os.dup2(sys.stdout.fileno(), sys.__stdout__.fileno())


def _nowhere() -> TextIO:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
