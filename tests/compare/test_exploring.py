"""Where two logs first differ, and which seed is shown."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pvops_core.compare.exploring import AROUND, Exploration, deviation, first_deviation, first_difference, told
from pvops_core.kinds import MachineKind
from pvops_core.machine.run.eventlog import Event
from pvops_core.runs.cell import Cell
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.runs.wire import Request

HASH = "0" * 64
REQUEST = Request(Cell("native", "6.1-64", MachineKind.X86_64, vcpus=2, seed=5))


def whole(event: Event) -> object:
    return event


def turn(ns: int, vcpu: int) -> Event:
    return Event(ns, "slice", vcpu, (("blocks", ns),))


def deed(ns: int, word: bytes = b"\1") -> Event:
    return Event(ns, "syscall", 0, (("word", word),))


@pytest.mark.parametrize("same", [0, 1, AROUND, AROUND + 3])
def test_the_place_and_what_is_around_it(same: int) -> None:
    common = [turn(ns, 0) for ns in range(same)]
    left, right = [*common, turn(50, 0), turn(51, 1)], [*common, turn(50, 1)]
    found = first_difference(left, right, whole)
    assert found is not None
    assert [event.number for event in found.before] == list(range(same))[-AROUND:]
    assert [event.number for event in found.reference] == [same, same + 1]
    assert [(event.number, event.vcpu) for event in found.found] == [(same, 1)]


def test_a_log_that_ends_and_logs_that_are_alike() -> None:
    found = first_difference([turn(1, 0)], [turn(1, 0), turn(2, 0)], whole)
    assert found is not None
    assert found.reference == ()
    assert first_difference([turn(1, 0)], [turn(1, 0)], whole) is None
    assert first_difference([], [], whole) is None


class Runs:
    """Each seed's result is the one of a table, or 1."""

    def __init__(self, odd: dict[int, str], outcome: Outcome = Outcome.POWEROFF) -> None:
        self.odd, self.outcome, self.made = odd, outcome, 0

    def __call__(self, requests: Sequence[Request]) -> list[Observation]:
        self.made += len(requests)
        log = HASH if self.outcome is Outcome.POWEROFF else ""
        return [
            Observation(
                each.cell, self.outcome, results={"sum": self.odd.get(each.cell.seed, "1")}, event_log_sha256=log
            )
            for each in requests
        ]


@pytest.mark.parametrize(("odd", "explored"), [({9: "2", 7: "3"}, 3), ({204: "2"}, 200), ({5: "2"}, 2), ({}, 200)])
def test_the_lowest_seed_is_taken_and_no_more_are_run(odd: dict[int, str], explored: int) -> None:
    runs = Runs(odd)
    reference, number, found = first_deviation(REQUEST, 200, runs)
    assert (reference.cell.seed, number) == (5, explored)
    assert (found is None) == (not odd)
    assert runs.made <= explored + 64
    if found is not None:
        assert found.cell.seed == 5 + explored - 1


def test_a_reference_that_did_not_run_ends_it() -> None:
    runs = Runs({}, Outcome.UNSUPPORTED)
    assert first_deviation(REQUEST, 200, runs)[1:] == (1, None)
    assert runs.made == 64


def test_turns_and_times_are_no_part_of_what_happened() -> None:
    logs = {5: [turn(1, 0), deed(2), deed(3)], 6: [turn(1, 1), turn(2, 0), deed(5), deed(6, b"\2")]}
    reference, number, other = first_deviation(REQUEST, 2, Runs({6: "2"}))
    assert other is not None
    found = deviation(REQUEST, reference, other, lambda request: logs[request.cell.seed])
    assert found.schedule is not None
    assert found.happened is not None
    assert (found.schedule.reference[0].number, found.schedule.found[0].number) == (0, 0)
    assert (found.happened.reference[0].number, found.happened.found[0].number) == (2, 3)
    assert found.happened.found[0].fields == {"word": "02"}
    lines = list(told(Exploration(number, 2, found, reference)))
    assert lines[:2] == ["seed 6: another result than seed 5's, after 2 of 2 runs", "  results.sum: 5 has 1, 6 has 2"]
    assert "what happened: the first difference in the event log" in lines


def test_a_log_that_ends_is_told() -> None:
    reference, number, other = first_deviation(REQUEST, 2, Runs({6: "2"}))
    assert other is not None
    found = deviation(REQUEST, reference, other, lambda request: [turn(1, 0)] * (request.cell.seed - 4))
    assert list(told(Exploration(number, 2, found, reference)))[-2:] == [
        "       5         the log ends",
        "       6      1  1 ns vcpu 0 slice blocks=1",
    ]
