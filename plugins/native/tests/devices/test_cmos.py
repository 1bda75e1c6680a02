"""The clock of the MC146818 on virtual time: its modes, its update, what is written to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devices_rig import Clock, cmos
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pvops_native.devices.cmos import Cmos


def read(device: Cmos, register: int) -> int:
    device.write(0x70, register)
    return device.read(0x71)


def set_(device: Cmos, register: int, value: int) -> None:
    device.write(0x70, register)
    device.write(0x71, value)


def test_clock_runs_with_the_virtual_clock() -> None:
    clock = Clock()
    device = cmos(clock)
    assert [read(device, n) for n in (0x32, 9, 8, 7, 6, 4, 2, 0)] == [0x20, 7, 8, 0x10, 6, 0x12, 0x34, 0x56]
    clock.ns = 4_000_000_000
    assert (read(device, 2), read(device, 0)) == (0x35, 0)


def test_update_in_progress_shows_before_the_second() -> None:
    clock = Clock(999_000_000)
    device = cmos(clock)
    assert read(device, 10) == 0xA6
    clock.ns = 1_000_000_000
    assert read(device, 10) == 0x26


def test_twelve_hour_and_binary_modes() -> None:
    device = cmos()
    set_(device, 11, 0x00)
    assert read(device, 4) == 0x92
    set_(device, 4, 0x81)  # 1 in the afternoon
    set_(device, 11, 0x06)
    assert read(device, 4) == 13
    set_(device, 11, 0x04)
    set_(device, 4, 12)  # midnight
    set_(device, 11, 0x06)
    assert read(device, 4) == 0


def test_setting_holds_the_clock() -> None:
    clock = Clock()
    device = cmos(clock)
    set_(device, 11, 0x82)
    clock.ns = 10_000_000_000
    set_(device, 0, 0x07)
    assert read(device, 0) == 7
    set_(device, 11, 0x02)
    clock.ns = 11_000_000_000
    assert read(device, 0) == 8


def test_memory_bytes_keep_what_was_written() -> None:
    device = cmos()
    set_(device, 0x40, 0x5A)
    assert read(device, 0x40) == 0x5A
    assert read(device, 13) == 0x80


@settings(max_examples=60, derandomize=True)
@given(
    st.lists(st.tuples(st.sampled_from([0, 2, 4, 6, 7, 8, 9, 0x32, 10, 11, 0x70]), st.integers(0, 255)), max_size=30)
)
def test_no_write_breaks_the_clock(writes: list[tuple[int, int]]) -> None:
    device = cmos()
    for register, value in writes:
        set_(device, register, value)
        assert all(0 <= read(device, n) <= 255 for n in range(128))
