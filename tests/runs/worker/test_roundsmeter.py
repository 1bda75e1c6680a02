"""What rounds took, and what is amiss, of a program whose marks and lines are made here."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pvops_core.runs.counts import Counts
from pvops_core.runs.worker.roundsmeter import RoundsMeter
from pvops_core.runs.workloads import tasks_of

GOOD = (
    "\r\n[0.1] noise\r\n"
    "guest: workload fork: ok, rounds 4, value 10\r\n"
    "guest: workload mmap: ok, rounds 2, value 32\r\n"
)


def metered(console: str, marks: str = "0 1 2 3") -> RoundsMeter:
    """A meter that has seen a program make marks, between each of which ten system calls and instructions happen."""
    machine = SimpleNamespace(instructions=0, clock=SimpleNamespace(ns=0), marked=None)
    session: Any = SimpleNamespace(machine=machine, platform=SimpleNamespace(console=console.encode()))
    meter = RoundsMeter(session, tasks_of("fork:4,mmap:2"), lambda: Counts(machine={"syscalls": machine.instructions}))
    told: Callable[[None, int], None] = machine.marked  # type: ignore[assignment]
    for mark in marks.split():
        told(None, int(mark))
        machine.instructions += 10
    return meter


def test_a_workload_is_what_was_counted_between_its_marks() -> None:
    """Also where another program makes marks of the same numbers later, or of others."""
    meter = metered(GOOD, "0 1 77 2 3 0 1")
    assert meter.wrong() == ""
    found = meter.found()
    assert list(found) == ["fork", "mmap"]
    assert (found["fork"].rounds, found["fork"].value, found["mmap"].value) == (4, 10, 32)
    assert found["fork"].total.counts == Counts(machine={"syscalls": 10})
    assert found["mmap"].total.instructions == 10


@pytest.mark.parametrize(
    ("console", "marks", "said"),
    [
        ("", "", "workload fork: the guest said nothing of it"),
        (GOOD.replace("mmap", "timer"), "0 1 2 3", "workload mmap: the guest said nothing of it"),
        (
            GOOD.replace("ok, rounds 2, value 32", "failed: munmap left a page"),
            "0 1 2 3",
            "mmap failed: munmap",
        ),
        (GOOD.replace("rounds 4", "rounds 3"), "0 1 2 3", "workload fork: 3 rounds of 4"),
        (GOOD, "0 2 3", "workload fork: 4 rounds of 4 are told of, or no mark was made"),
        (GOOD.replace("guest: workload fork", " guest: workload fork"), "0 1 2 3", "fork: the guest said nothing"),
    ],
)
def test_what_is_amiss_is_said(console: str, marks: str, said: str) -> None:
    """Of the first workload that was not carried out as asked for; what the others took is told."""
    meter = metered(console, marks)
    assert said in meter.wrong()
    assert len(meter.found()) <= 1 or "rounds" in said
