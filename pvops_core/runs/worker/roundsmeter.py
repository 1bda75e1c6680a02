"""Counts what the rounds of each workload take, and holds what the program says of them against what was asked for."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from pvops_core.runs.rounds import Amounts, Rounds

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.runs.counts import Counts
    from pvops_core.runs.workloads import Task
    from pvops_core.session import Session

_SAID: Final = re.compile(r"^guest: workload (\w+): (?:ok, rounds (\d+), value (\d+)|(.*))", re.MULTILINE | re.ASCII)
"""What the program says of a workload (``carry_out`` of guests/workload/source/main.c)."""


class RoundsMeter:
    """Looks at one session, from when it is made on.

    Args:
        session: has not run yet.
        tasks: the workloads, in the order in which the program makes their rounds.
        count: gives all counters as they are.
    """

    def __init__(self, session: Session, tasks: Sequence[Task], count: Callable[[], Counts]) -> None:
        self._session, self._tasks, self._count = session, tasks, count
        self._marks: dict[int, Amounts] = {}
        session.machine.marked = self._mark

    def _mark(self, _vcpu: Vcpu, number: int) -> None:
        # The first of a number: any program may make marks, and this one makes each once.
        if number < 2 * len(self._tasks) and number not in self._marks:
            machine = self._session.machine
            self._marks[number] = Amounts(self._count(), machine.instructions, machine.clock.ns, time.perf_counter())

    def wrong(self) -> str:
        """What is amiss with the workload of which the program did not say that it is well; empty if it did of all."""
        said = self._said()
        for number, task in enumerate(self._tasks):
            if task.name not in said:
                return f"workload {task.name}: the guest said nothing of it"
            rounds, _, failure = said[task.name]
            if failure:
                return f"workload {task.name} {failure}"
            if int(rounds) != task.rounds or not {2 * number, 2 * number + 1} <= self._marks.keys():
                return (
                    f"workload {task.name}: {rounds or 'no'} rounds of {task.rounds} are told of, or no mark was made"
                )
        return ""

    def found(self) -> dict[str, Rounds]:
        """What the rounds of each workload took, of those that came to their end."""
        said, found = self._said(), {}
        for number, task in enumerate(self._tasks):
            begin, end = self._marks.get(2 * number), self._marks.get(2 * number + 1)
            if begin and end and task.name in said and said[task.name][0]:
                rounds, value, _ = said[task.name]
                found[task.name] = Rounds(int(rounds), int(value), end.since(begin))
        return found

    def _said(self) -> dict[str, tuple[str, str, str]]:
        """Rounds and value, or what is wrong, by workload."""
        text = self._session.platform.console.decode(errors="replace").replace("\r", "")
        return {name: (rounds, value, failure) for name, rounds, value, failure in _SAID.findall(text)}
