"""Standard output and error as the process was given them: closed, full, or read by someone who has had enough."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def open_missing() -> None:
    """Stand in for streams that were closed before we started: whoever did that wants to read nothing."""
    if sys.stdout is None:
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()


def stop_writing() -> None:
    """Drop what is still to be written, so that Python's own flush at exit does not fail again."""
    sys.stdout = _nowhere()
    if sys.__stdout__ is not None:
        os.dup2(sys.stdout.fileno(), sys.__stdout__.fileno())


def _nowhere() -> TextIO:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
