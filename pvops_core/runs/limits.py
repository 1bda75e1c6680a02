"""How much a child process may take before it is ended."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

_PAGE = os.sysconf("SC_PAGE_SIZE")


@attrs.frozen
class Limits:
    """Bounds on one child process; generous, since a run that meets one is lost.

    Attributes:
        wall_s: seconds of wall time, from the start of the process to its answer.
        memory: bytes of resident memory, guest memory included.
        output: bytes that it may write to its parent.
    """

    wall_s: float = 120.0
    memory: int = 4 << 30
    output: int = 64 << 20


def resident_bytes(pid: int) -> int | None:
    """Resident memory of a process in bytes, or None where it has gone or the system does not tell.

    Source: proc(5), ``/proc/pid/statm``, second field, in pages.
    """
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return None
