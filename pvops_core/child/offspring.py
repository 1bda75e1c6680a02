"""All processes that a child has started, wherever they have gone: a group, a session, the care of init.

They are known by a variable of their environment. What is started without it hides, and stays: this is order, no wall.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from pathlib import Path
from typing import Final

import attrs

_VARIABLE: Final = "_PVOPS_CHILD"
_PROC: Final = Path("/proc")
_NUMBERS: Final = itertools.count()
_ROUNDS: Final = 8
"""Looks at all processes: one that forks meanwhile is seen by the next."""


@attrs.frozen
class Offspring:
    """The processes of one child.

    Attributes:
        mark: the variable that the child is to be given, by which they are known.
    """

    mark: dict[str, str] = attrs.field(factory=lambda: {_VARIABLE: f"{os.getpid()}-{time.time_ns()}-{next(_NUMBERS)}"})

    def pids(self) -> list[int]:
        """Those that there are; ended ones that nobody has collected have no environment."""
        wanted = f"{_VARIABLE}={self.mark[_VARIABLE]}".encode()
        found = []
        for place in _PROC.iterdir():
            if place.name.isdigit():
                with contextlib.suppress(OSError):  # it has ended, or is another user's
                    if wanted in (place / "environ").read_bytes().split(b"\0"):
                        found.append(int(place.name))
        return found

    def kill(self) -> None:
        """End them all."""
        for _ in range(_ROUNDS):
            there = self.pids()
            if not there:
                return
            for pid in there:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
