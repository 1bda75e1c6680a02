"""The event log against the plain list that it stands for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.machine.run import eventlog
from pvops_core.machine.run.clock import Clock
from pvops_core.machine.run.eventlog import Event, EventLog

VALUES = st.integers() | st.text() | st.binary()
RECORDS = st.lists(
    st.tuples(
        st.integers(0, 1000),
        st.text(max_size=4),
        st.none() | st.integers(0, 31),
        st.dictionaries(st.sampled_from(["rip", "nr", "b"]), VALUES),
    ),
    max_size=40,
)


def fill(log: EventLog, clock: Clock, records: list[tuple[int, str, int | None, dict[str, int | str | bytes]]]) -> None:
    for ns, kind, vcpu, fields in records:
        clock.advance(ns)
        log.record(kind, vcpu, **fields)


@pytest.fixture(params=[1, 3, 1 << 13])
def packed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(eventlog, "PACKED", request.param)
    return int(request.param)


@pytest.mark.usefixtures("packed")
class TestAnySizeOfPack:
    @given(records=RECORDS, first=st.integers(0, 50))
    def test_events_come_back_as_they_were(self, records: list, first: int) -> None:  # type: ignore[type-arg]
        clock = Clock()
        log = EventLog(clock)
        fill(log, clock, records)
        now, expected = 0, []
        for ns, kind, vcpu, fields in records:
            now += ns
            expected.append(Event(now, kind, vcpu, tuple(sorted(fields.items()))))
        assert list(log.events) == expected
        assert len(log) == len(expected)
        assert list(log.since(first)) == expected[first:]

    @given(before=RECORDS, after=RECORDS)
    def test_a_snapshot_brings_events_and_hash_back(self, before: list, after: list) -> None:  # type: ignore[type-arg]
        clock = Clock()
        log = EventLog(clock)
        fill(log, clock, before)
        saved, time, events, digest = log.save(), clock.save(), log.events, log.sha256
        for _ in range(2):
            fill(log, clock, after)
            end = log.sha256
            clock.load(time)
            log.load(saved)
            assert (log.events, log.sha256) == (events, digest)
            assert (end == digest) == (not after)


@given(records=RECORDS)
def test_the_hash_does_not_depend_on_how_events_are_packed(records: list) -> None:  # type: ignore[type-arg]
    digests = set()
    with pytest.MonkeyPatch.context() as patch:
        for size in (1, 2, 5, 1 << 13):
            patch.setattr(eventlog, "PACKED", size)
            clock = Clock()
            log = EventLog(clock)
            fill(log, clock, records)
            digests.add(log.sha256)
    assert len(digests) == 1


def test_a_guest_that_is_stuck_fills_little_memory() -> None:
    clock = Clock()
    log = EventLog(clock)
    for _ in range(100_000):
        clock.advance(505)
        log.record("exception", 0, vector=14, rip=0xFFFFFFFF81000000, error=2, address=0xFFFF888000000000)
    assert len(log) == 100_000
    assert sum(map(len, log._packs)) < 4 << 20
