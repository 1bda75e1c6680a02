from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_native.devices.pit import Pit, ns_of, ticks_at


@attrs.define
class Bench:
    ns: int = 0
    rises: int = 0

    def now(self) -> int:
        return self.ns

    def rise(self) -> None:
        self.rises += 1

    def at(self, tick: int) -> None:
        self.ns = ns_of(tick)


def bench(*writes: tuple[int, int]) -> tuple[Bench, Pit]:
    there = Bench()
    pit = Pit(there.now, there.rise)
    for port, value in writes:
        pit.write(port, value)
    return there, pit


def count(pit: Pit, port: int = 0x40) -> int:
    pit.write(0x43, (port - 0x40) << 6)
    return pit.read(port) | pit.read(port) << 8


@given(st.integers(0, 1 << 50))
def test_first_nanosecond_of_a_tick(tick: int) -> None:
    assert ticks_at(ns_of(tick)) == tick
    assert tick == 0 or ticks_at(ns_of(tick) - 1) == tick - 1


@pytest.mark.parametrize("mode", [2, 3])
def test_periodic_modes_rise_every_period(mode: int) -> None:
    there, pit = bench((0x43, 0x30 | mode << 1), (0x40, 1000 & 0xFF), (0x40, 1000 >> 8))
    for period in range(1, 5):
        event = pit.next_event()
        assert event == ns_of(1 + 1000 * period)
        there.ns = event - 1
        pit.service()
        assert there.rises == period - 1
        there.ns = event
        pit.service()
        assert there.rises == period


def test_missed_periods_merge_into_one_request() -> None:
    there, pit = bench((0x43, 0x34), (0x40, 100), (0x40, 0))
    there.at(1000)
    pit.service()
    assert there.rises == 1
    assert pit.next_event() == ns_of(1001)


def test_one_shot_takes_a_pulse_more_than_its_count() -> None:
    there, pit = bench((0x43, 0x30), (0x40, 50), (0x40, 0))
    assert pit.next_event() == ns_of(51)
    there.at(51)
    pit.service()
    assert there.rises == 1
    assert pit.next_event() is None
    there.at(60)
    assert count(pit) == 0x10000 - 9


def test_a_new_count_of_a_periodic_mode_waits_for_the_period() -> None:
    there, pit = bench((0x43, 0x34), (0x40, 100), (0x40, 0))
    there.at(50)
    pit.write(0x40, 30)
    pit.write(0x40, 0)
    assert pit.next_event() == ns_of(101)
    there.at(101)
    pit.service()
    assert pit.next_event() == ns_of(131)


def test_latched_count_and_status() -> None:
    there, pit = bench((0x43, 0x34), (0x40, 0), (0x40, 0))
    there.at(1 + 0x1234)
    pit.write(0x43, 0xC2)  # read back: count and status of counter 0
    there.at(0x2000)
    assert pit.read(0x40) == 0xB4  # OUT high, both bytes, mode 2
    assert pit.read(0x40) == -0x1234 & 0xFF
    assert pit.read(0x40) == (-0x1234 & 0xFFFF) >> 8


def test_bcd_counts() -> None:
    there, pit = bench((0x43, 0x31), (0x40, 0x00), (0x40, 0x20))
    there.at(1 + 500)
    assert count(pit) == 0x1500


def test_gated_counter_and_its_output() -> None:
    there, pit = bench((0x43, 0xB0), (0x42, 100), (0x42, 0))
    there.at(500)
    assert count(pit, 0x42) == 100
    assert not pit.read(0x61) & 0x20
    pit.write(0x61, 1)
    there.at(599)
    assert not pit.read(0x61) & 0x20
    there.at(600)
    assert pit.read(0x61) & 0x20


def test_stopped_counter_has_no_event() -> None:
    there, pit = bench((0x43, 0x34), (0x40, 10), (0x40, 0), (0x43, 0x30))
    there.at(1000)
    pit.service()
    assert pit.next_event() is None
    assert there.rises == 0


@settings(max_examples=80, derandomize=True)
@given(
    st.sampled_from([0, 2, 3, 4]),
    st.integers(2, 0xFFFF),
    st.lists(st.integers(1, 40_000), min_size=1, max_size=20),
)
def test_a_rise_is_seen_exactly_when_the_output_went_high(mode: int, reload: int, steps: list[int]) -> None:
    """The edges that next_event tells agree with the level of OUT, looked at tick by tick around them."""
    there, pit = bench((0x43, 0x30 | mode << 1), (0x40, reload & 0xFF), (0x40, reload >> 8))
    counter = pit.counters[0]
    tick = 0
    for step in steps:
        rise = counter.next_rise(tick)
        if rise is not None:
            assert counter.output(rise)
            assert not counter.output(rise - 1)
        tick += step
        there.at(tick)
        before = there.rises
        pit.service()
        assert there.rises - before == (rise is not None and rise <= tick)


def test_a_counter_that_only_firmware_has_loaded_has_no_null_count() -> None:
    there, pit = bench((0x43, 0xE2))  # read back the status of counter 0
    assert not pit.read(0x40) & 0x40
    pit.write(0x43, 0x34)
    pit.write(0x43, 0xE2)
    assert pit.read(0x40) & 0x40, "until a count is written"
    for value in (100, 0):
        pit.write(0x40, value)
    there.at(5)
    pit.write(0x43, 0xE2)
    assert not pit.read(0x40) & 0x40
