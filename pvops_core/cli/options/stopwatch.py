"""How long the present command has been running; limits of time count from its start."""

from __future__ import annotations

import os
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Final

_begun: Final[ContextVar[float]] = ContextVar("begun")


def begin(*, with_process: bool) -> None:
    """A command begins now or, where the process is there for it alone, began when that was started."""
    _begun.set(time.monotonic() - (_process_age() if with_process else 0.0))


def elapsed() -> float:
    """Seconds since the command began; 0 outside of one."""
    now = time.monotonic()
    return now - _begun.get(now)


def _process_age() -> float:
    """Seconds since this process was started; 0 where the system does not tell.

    Source: proc(5), ``/proc/pid/stat`` field 22, in clock ticks since boot, on the clock that CLOCK_BOOTTIME shows.
    """
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, IndexError, ValueError, AttributeError):
        return 0.0
