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
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARIABLE: Final = "_PVOPS_CHILD"
_PROC: Final = Path("/proc")
_NUMBERS: Final = itertools.count()
_ROUNDS: Final = 8
"""Looks at all processes: one that forks meanwhile is seen by the next."""
_EXECVE_S: Final = 1.0
_SOON_S: Final = 0.001


def _environments() -> Iterator[tuple[int, list[bytes] | None]]:
    """What there is of each process that may be looked at; None of one in the midst of execve, which has none there."""
    for place in _PROC.iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                yield int(place.name), _environment(place)


def _environment(place: Path) -> list[bytes] | None:
    """A process's environment; None if it is in the midst of execve.

    The kernel closes what execve closes, which tells a parent that the program runs, some time before it lays out
    arguments and environment (begin_new_exec and create_elf_tables, fs/exec.c and fs/binfmt_elf.c).

    Raises:
        OSError: it has no program: it is the kernel's own, or has ended.
    """
    if found := (place / "environ").read_bytes():
        return found.split(b"\0")
    (place / "exe").readlink()
    begun = (place / "cmdline").read_bytes()  # laid out before the environment, which is looked at again behind it
    found = (place / "environ").read_bytes()
    return found.split(b"\0") if found or begun else None


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
        until = time.monotonic() + _EXECVE_S
        while True:
            environments = dict(_environments())
            if None not in environments.values() or time.monotonic() > until:
                return [pid for pid, environment in environments.items() if wanted in (environment or ())]
            time.sleep(_SOON_S)

    def kill(self) -> None:
        """End them all."""
        for _ in range(_ROUNDS):
            there = self.pids()
            if not there:
                return
            for pid in there:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
