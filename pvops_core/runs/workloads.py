"""Which workloads there are, and how a command line names them: ``fork:100,mmap``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from pvops_core.errors import UsageError, unknown

WORKLOADS: Final[Mapping[str, str]] = {
    "fork": "a process is made, ends, and is waited for",
    "exec": "the same, and the process executes the program anew",
    "mmap": "16 pages are mapped, written to, half of them protected and unprotected, and unmapped",
    "fault": "16 pages that have none behind them are read and written to, a fault each time, and given back",
    "switch": "two processes on one CPU hand a byte to and fro through pipes",
    "signal": "the process sends itself a signal and handles it",
    "syscall": "one system call that does next to nothing: getppid",
    "futex": "a baton goes from thread to thread by futexes, once round all CPUs (two threads on one CPU)",
    "spin": "a thread on each CPU takes a spinlock of the program's, and one in the kernel that all share",
    "timer": "a timer is set to a millisecond, and waited for",
}
"""Name -> what one round is."""
ROUNDS: Final = 100
MOST_ROUNDS: Final = 1_000_000
_TASK: Final = re.compile(r"(?P<name>[^:,]*?)(?::(?P<rounds>[0-9]{1,7}))?")


@attrs.frozen
class Task:
    """So many rounds of one workload."""

    name: str
    rounds: int

    @classmethod
    def parse(cls, text: str) -> Task:
        """What ``NAME`` or ``NAME:ROUNDS`` says.

        Raises:
            UsageError: there is no such workload, or not so many rounds can be made.
        """
        found = _TASK.fullmatch(text.strip())
        if found is None:
            raise UsageError(f"{text.strip()!r} is not WORKLOAD:ROUNDS, such as fork:100")
        if found["name"] not in WORKLOADS:
            raise unknown("workload", found["name"], WORKLOADS)
        rounds = ROUNDS if found["rounds"] is None else int(found["rounds"])
        if not 1 <= rounds <= MOST_ROUNDS:
            raise UsageError(f"{text.strip()}: a workload has 1 to {MOST_ROUNDS:,} rounds")
        return cls(found["name"], rounds)

    def __str__(self) -> str:
        return f"{self.name}:{self.rounds}"

    @property
    def label(self) -> str:
        """What a table calls it: the name alone where as many rounds are made as usual."""
        return self.name if self.rounds == ROUNDS else str(self)


def tasks_of(text: str) -> tuple[Task, ...]:
    """All that a list parted by commas names, in order; none for an empty text.

    Raises:
        UsageError: as of one; or a workload is named twice.
    """
    tasks = tuple(Task.parse(each) for each in text.split(",")) if text.strip() else ()
    names = [task.name for task in tasks]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise UsageError(f"the workload {twice} is named twice")
    return tasks


def written(tasks: Iterable[Task]) -> str:
    """The list that names these, each with its rounds."""
    return ",".join(map(str, tasks))
