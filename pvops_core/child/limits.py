"""How much a child process may take before it is ended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import attrs

_PATIENCE_S: Final = 2.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


@attrs.frozen
class Limits:
    """Bounds on one child process; generous, since a run that meets one is lost.

    Attributes:
        wall_s: seconds of wall time to the answer. A guest's worker has them from the guest's first instruction on, and
            keeps them itself, to say where the guest was; one that does not is ended a little later.
        start_s: seconds of wall time for all that comes before a guest's first instruction; and as many, when the guest
            has ended, to the answer.
        memory: bytes of resident memory, guest memory included.
        output: bytes that it may write to its parent.
    """

    wall_s: float = 120.0
    start_s: float = 60.0
    memory: int = 4 << 30
    output: int = 64 << 20

    @property
    def patience_s(self) -> float:
        """After which a guest's worker that did not end the run by itself is ended."""
        return self.wall_s + max(_PATIENCE_S, 0.08 * self.wall_s)


def resident_bytes(pid: int) -> int | None:
    """Resident memory of a process in bytes, or None where it has gone or the system does not tell.

    Source: proc(5), ``/proc/pid/statm``, second field, in pages.
    """
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return None
