"""Clocks: the wall clock of CMOS, the calibrated counter, the tick."""

from __future__ import annotations

import calendar
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pvops_native.devices.cmos import mktime
from pvops_native.ops.irq import FIRST_VECTOR
from rig import Rig

if TYPE_CHECKING:
    from collections.abc import Iterator

DATE = calendar.timegm((2007, 8, 10, 11, 22, 33))
SECOND = 1_000_000_000


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig("2.6.24", rtc=str(DATE)) as rig:
        yield rig


@given(st.integers(0, 4_000_000_000))
def test_mktime_is_the_calendar(seconds: int) -> None:
    assert mktime(*time.gmtime(seconds)[:6]) == seconds


def test_wall_clock_follows_virtual_time(rig: Rig) -> None:
    assert rig.ops.get_wallclock(rig.cpu) == DATE
    rig.machine.clock.advance(90 * SECOND)
    assert rig.ops.get_wallclock(rig.cpu) == DATE + 90


def test_wall_clock_is_whole_when_a_second_ends_meanwhile(rig: Rig) -> None:
    rig.machine.clock.advance(SECOND - 10_000)
    assert rig.ops.get_wallclock(rig.cpu) == DATE + 1
    assert rig.machine.clock.ns >= SECOND


def test_setting_changes_minutes_and_seconds_only(rig: Rig) -> None:
    assert rig.ops.set_wallclock(rig.cpu, DATE + 600) == 0
    assert rig.ops.get_wallclock(rig.cpu) == DATE + 600
    assert rig.ops.set_wallclock(rig.cpu, DATE + 600 + 2 * 3600) == 0
    assert rig.ops.get_wallclock(rig.cpu) == DATE + 600


def test_a_clock_half_an_hour_off_is_a_time_zone(rig: Rig) -> None:
    assert rig.ops.set_wallclock(rig.cpu, DATE + 1800) == 0
    assert rig.ops.get_wallclock(rig.cpu) == DATE


def test_a_clock_that_is_not_there(rig: Rig) -> None:
    rig.platform.io_in = lambda _vcpu, _port, size: (1 << 8 * size) - 1  # type: ignore[method-assign]
    assert isinstance(rig.ops.get_wallclock(rig.cpu), int)
    assert rig.ops.get_cpu_khz(rig.cpu) == 0
    assert rig.ops.sched_clock(rig.cpu) == 0


def test_calibration_finds_the_counter_s_rate(rig: Rig) -> None:
    assert rig.ops.get_cpu_khz(rig.cpu) == pytest.approx(1_000_000, rel=1e-3)
    before = rig.ops.sched_clock(rig.cpu)
    rig.machine.clock.advance(5 * SECOND)
    assert rig.ops.sched_clock(rig.cpu) - before == pytest.approx(5 * SECOND, rel=1e-3)
    assert rig.ops.read_tsc(rig.cpu) == rig.machine.clock.ns


def test_tick_is_programmed_and_unmasked(rig: Rig) -> None:
    rig.ops.init_IRQ(rig.cpu)
    pic = rig.platform.board.pic
    assert (pic.master.base, pic.slave.base) == (FIRST_VECTOR, FIRST_VECTOR + 8)
    assert (pic.master.imr, pic.slave.imr) == (0xFB, 0xFF)
    rig.ops.time_init(rig.cpu)
    assert pic.master.imr == 0xFA
    event = rig.platform.board.next_event({0})
    assert event is not None
    assert event - rig.machine.clock.ns == pytest.approx(SECOND // 100, rel=1e-2)
