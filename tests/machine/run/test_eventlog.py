"""The event log against the plain list that it stands for."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.errors import MachineError
from pvops_core.machine.run import eventlog
from pvops_core.machine.run.clock import Clock
from pvops_core.machine.run.eventlog import Begun, Event, EventLog, WrittenLog

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


@given(before=RECORDS, after=RECORDS, of_a_file=st.booleans())
def test_a_state_goes_on_in_another_log(before: list, after: list, of_a_file: bool) -> None:  # type: ignore[type-arg]  # noqa: FBT001
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eventlog, "PACKED", 3)
        clock = Clock()
        log = EventLog(clock)
        fill(log, clock, before)
        elsewhere = EventLog(clock)
        state = log.save()
        elsewhere.load(log.read(log.written(state)) if of_a_file else state)
        assert (log.events, len(log)) == (elsewhere.events, len(elsewhere))
        assert log.written(elsewhere.save()) == log.written(state)
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


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"packs": (b"\xff\xff\xff\x7f\x10a",)}, "too long"),
        ({"packs": (b"\x08\0\0\0\xff\xff",)}, "cannot be read"),
        ({"packs": ()}, "has the hash"),
        ({"begun": Begun(eventlog.PACKED, b"")}, "events that are in no pack"),
        ({"begun": Begun(-1, b"")}, "events that are in no pack"),
    ],
)
def test_a_log_that_is_none_is_refused(change: dict[str, Any], told: str) -> None:
    log, elsewhere = EventLog(Clock()), EventLog(Clock())
    for _ in range(eventlog.PACKED + 1):
        log.record("x")
    with pytest.raises(MachineError, match=told):
        elsewhere.load(elsewhere.read(log.written(log.save())._replace(**change)))


@pytest.mark.parametrize("data", [b"?", b"1;s1:x", b"1;\n", b"1;s1:x1;s1:a\n"])
def test_events_that_are_none_are_refused_when_they_are_read(data: bytes) -> None:
    log = EventLog(Clock())
    log.load(log.read(WrittenLog((), Begun(1, data), bytes(32))))
    if data != b"1;s1:x":
        with pytest.raises(MachineError, match="a saved event log"):
            list(log)
