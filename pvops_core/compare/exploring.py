"""Many schedules of one run: the first seed with another result, and where its event log leaves the reference's."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Final

from msgspec.structs import replace

from pvops_core.compare.differences import differences
from pvops_core.records import FLAT, Count, JsonRecord, Positive
from pvops_core.runs.observation import Observation

if TYPE_CHECKING:
    from pvops_core.machine.run.eventlog import Event
    from pvops_core.runs.wire import Request

AROUND: Final = 4
"""Events that are shown before a difference, and of each log from there on."""
_BATCH: Final = 64
"""Runs after which their observations are looked at and let go."""
_SCHEDULE: Final = "slice"
"""The kind of event that says whose turn it was and for how long."""


class LogEvent(JsonRecord, frozen=True):
    """An event of a log.

    Attributes:
        number: Its number in the log, from 0.
        ns: Virtual time in nanoseconds.
        kind: What happened.
        vcpu: Virtual CPU that it happened on; null where it is nobody's.
        fields: Its particulars, by name; bytes as hexadecimal digits.
    """

    number: Count
    ns: Count
    kind: str
    vcpu: Count | None
    fields: dict[str, int | str]

    def __str__(self) -> str:
        who = "" if self.vcpu is None else f" vcpu {self.vcpu}"
        return f"{self.ns:,} ns{who} {self.kind} " + " ".join(f"{name}={value}" for name, value in self.fields.items())


class LogDifference(JsonRecord, frozen=True):
    """The first place where two event logs differ.

    Attributes:
        before: The last events that both have.
        reference: The reference's events from there on; none where its log ends there.
        found: The other's.
    """

    before: tuple[LogEvent, ...]
    reference: tuple[LogEvent, ...]
    found: tuple[LogEvent, ...]


class SeedDifference(JsonRecord, frozen=True):
    """A result that the reference has not.

    Attributes:
        field: `outcome`, `console`, or `results.NAME`.
        expected: What the reference has.
        found: What the other seed has.
    """

    field: str
    expected: str
    found: str


class Deviation(JsonRecord, frozen=True):
    """A seed with another result.

    Attributes:
        seed: Of the run.
        differences: What is not as in the reference, the weightiest first.
        schedule: Where the two schedules first differ: whose turn it was, for how long, or what happened in it.
        happened: Where what happened first differs, turns and times aside; null where only those do.
        run: What was observed.
    """

    seed: Count
    differences: tuple[SeedDifference, ...]
    schedule: LogDifference | None
    happened: LogDifference | None
    run: Observation


class Exploration(JsonRecord, frozen=True):
    """One run under many schedules.

    Attributes:
        explored: Seeds that were run, the reference's among them, up to the first with another result.
        asked: Seeds that were to be.
        deviation: The first seed with another result; null where all are alike.
        reference: The run of the first seed.
    """

    explored: Positive
    asked: Positive
    deviation: Deviation | None
    reference: Annotated[Observation, FLAT]


Runs = Callable[[Sequence["Request"]], Sequence[Observation]]
Logs = Callable[["Request"], Iterable["Event"]]


def first_deviation(request: Request, count: int, make: Runs) -> tuple[Observation, int, Observation | None]:
    """The run of the first seed, how many were run, and the first run with another result.

    Args:
        request: the run of the first seed.
        count: how many seeds from there on.
        make: makes runs.
    """
    requests = [_of_seed(request, request.cell.seed + number) for number in range(count)]
    reference: Observation | None = None
    for begin in range(0, count, _BATCH):
        for number, run in enumerate(make(requests[begin : begin + _BATCH]), begin + 1):
            reference = reference or run
            if not reference.measured or differences(reference, run):
                return reference, number, run if run is not reference else None
    assert reference is not None
    return reference, count, None


def deviation(request: Request, reference: Observation, found: Observation, logs: Logs) -> Deviation:
    """What is to be said of a run with another result.

    Args:
        request: the run of the first seed.
        reference: what was observed of it.
        found: what was observed of the other.
        logs: makes a run again and gives its event log.
    """
    seed = found.cell.seed
    left, right = list(logs(request)), list(logs(_of_seed(request, seed)))
    unequal = differences(reference, found)
    return Deviation(
        seed,
        tuple(SeedDifference(each.field, each.expected, each.found) for each in unequal),
        first_difference(left, right, _whole),
        first_difference(_without_turns(left), _without_turns(right), _deed),
        found,
    )


def _of_seed(request: Request, seed: int) -> Request:
    return replace(request, cell=replace(request.cell, seed=seed))


def _whole(event: Event) -> object:
    return event


def _deed(event: Event) -> object:
    return event.kind, event.vcpu, event.fields


def _without_turns(events: Iterable[Event]) -> list[Event | None]:
    """Turns are left out; the others keep their numbers."""
    return [None if event.kind == _SCHEDULE else event for event in events]


def first_difference(
    left: Sequence[Event | None], right: Sequence[Event | None], said: Callable[[Event], object]
) -> LogDifference | None:
    """Where two logs first differ; None if they do not.

    Args:
        left: the reference's events.
        right: the other's.
        said: what is compared of an event.
    """
    ours, theirs = _numbered(left), _numbered(right)
    before: deque[LogEvent] = deque(maxlen=AROUND)
    for one, other in itertools.zip_longest(ours, theirs):
        if one is None or other is None or said(one[1]) != said(other[1]):
            rest = [_shown(side, each) for side, each in ((ours, one), (theirs, other))]
            return LogDifference(tuple(before), *rest)
        before.append(_plain(*one))
    return None


def _numbered(events: Sequence[Event | None]) -> Iterator[tuple[int, Event]]:
    return ((number, event) for number, event in enumerate(events) if event is not None)


def _shown(rest: Iterator[tuple[int, Event]], first: tuple[int, Event] | None) -> tuple[LogEvent, ...]:
    there = itertools.chain([first] if first else [], rest)
    return tuple(_plain(*each) for each in itertools.islice(there, AROUND))


def _plain(number: int, event: Event) -> LogEvent:
    fields = {name: value.hex() if isinstance(value, bytes) else value for name, value in event.fields}
    return LogEvent(number, event.ns, event.kind, event.vcpu, fields)


def told(exploration: Exploration) -> Iterator[str]:
    """What was found, in lines for a person."""
    first, last = exploration.reference.cell.seed, exploration.reference.cell.seed + exploration.explored - 1
    ending = exploration.reference.outcome.value
    found = exploration.deviation
    if found is None:
        yield f"seeds {first} to {last}: one result, {ending}"
        return
    runs = f"{exploration.explored} of {exploration.asked} runs"
    yield f"seed {found.seed}: another result than seed {first}'s, after {runs}"
    for each in found.differences:
        yield f"  {each.field}: {first} has {each.expected}, {found.seed} has {each.found}"
    for title, place in (("schedules", found.schedule), ("what happened", found.happened)):
        if place is not None:
            yield f"{title}: the first difference in the event log"
            yield from (f"         {event.number:>6}  {event}" for event in place.before)
            for seed, events in ((first, place.reference), (found.seed, place.found)):
                yield from (f"  {seed:>6} {event.number:>6}  {event}" for event in events)
                if not events:
                    yield f"  {seed:>6}         the log ends"
