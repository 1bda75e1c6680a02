"""The event log against the plain list that it stands for."""

from __future__ import annotations

import hashlib

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


@given(records=RECORDS, size=st.integers(1, 50))
def test_the_hash_is_a_chain_of_digests_of_packs(records: list, size: int) -> None:  # type: ignore[type-arg]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eventlog, "PACKED", size)
        clock = Clock()
        log = EventLog(clock)
        fill(log, clock, records)
    forms, link = [], bytes(32)
    for event in log.events:
        forms.append(written(event))
        if len(forms) == size:
            link = hashlib.sha256(link + b"".join(forms)).digest()
            forms.clear()
    assert log.sha256 == hashlib.sha256(link + b"".join(forms)).hexdigest()


def written(event: Event) -> bytes:
    """As the reference page says."""
    values: list[int | str | bytes] = [event.ns, event.kind, -1 if event.vcpu is None else event.vcpu]
    for pair in event.fields:
        values += pair
    parts = []
    for value in values:
        if isinstance(value, int):
            parts.append(f"{value};".encode())
        else:
            raw = value.encode() if isinstance(value, str) else value
            parts.append(f"{'s' if isinstance(value, str) else 'b'}{len(raw)}:".encode() + raw)
    return b"".join(parts) + b"\n"


@given(before=RECORDS, after=RECORDS)
def test_a_state_goes_on_in_another_log(before: list, after: list) -> None:  # type: ignore[type-arg]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eventlog, "PACKED", 3)
        clock = Clock()
        log = EventLog(clock)
        fill(log, clock, before)
        elsewhere = EventLog(clock)
        elsewhere.load(log.save())
        now = clock.save()
        fill(log, clock, after)
        clock.load(now)
        fill(elsewhere, clock, after)
    assert (log.events, log.sha256) == (elsewhere.events, elsewhere.sha256)


def test_a_guest_that_is_stuck_fills_little_memory() -> None:
    clock = Clock()
    log = EventLog(clock)
    for _ in range(100_000):
        clock.advance(505)
        log.record("exception", 0, vector=14, rip=0xFFFFFFFF81000000, error=2, address=0xFFFF888000000000)
    assert len(log) == 100_000
    assert sum(map(len, log._packs)) < 4 << 20
