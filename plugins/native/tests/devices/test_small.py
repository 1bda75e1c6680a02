from __future__ import annotations

import calendar

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_native.devices.bus import PortBus
from pvops_native.devices.cmos import Cmos
from pvops_native.devices.power import Power
from pvops_native.devices.uart import Uart

EPOCH = calendar.timegm((2007, 8, 10, 12, 34, 56))


@attrs.define
class Clock:
    ns: int = 0

    def now(self) -> int:
        return self.ns


def cmos(clock: Clock | None = None, epoch: int = EPOCH) -> Cmos:
    return Cmos((clock or Clock()).now, epoch)


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


@pytest.mark.parametrize(
    ("port", "size", "value", "reason"),
    [
        (0x604, 2, 0x2000, "poweroff"),
        (0x64, 1, 0xFE, "reboot"),
        (0xCF9, 1, 0x06, "reboot"),
        (0x604, 2, 0x2400, "crash"),
    ],
)
def test_the_ways_out(port: int, size: int, value: int, reason: str) -> None:
    ends: list[str] = []
    PortBus([Power(ends.append)]).write(port, size, value)
    assert ends == [reason]


@pytest.mark.parametrize(
    ("port", "size", "value"), [(0x604, 2, 0x0001), (0x64, 1, 0xD1), (0xCF9, 1, 0x02), (0x605, 1, 0x1F)]
)
def test_what_is_no_way_out(port: int, size: int, value: int) -> None:
    ends: list[str] = []
    PortBus([Power(ends.append)]).write(port, size, value)
    assert not ends


@attrs.define
class Line:
    level: bool = False

    def drive(self, level: bool) -> None:  # noqa: FBT001  # a wire has one level and nothing else
        self.level = level


def uart() -> tuple[bytearray, Line, Uart]:
    sent, line = bytearray(), Line()
    return sent, line, Uart(sent.append, line.drive)


def test_bytes_leave_at_once() -> None:
    sent, _, device = uart()
    for byte in b"hello":
        assert device.read(0x3FD) & 0x20
        device.write(0x3F8, byte)
    assert sent == b"hello"


def test_divisor_hides_data_and_enables() -> None:
    sent, _, device = uart()
    device.write(0x3FB, 0x83)
    device.write(0x3F8, 12)
    device.write(0x3F9, 1)
    assert (device.read(0x3F8), device.read(0x3F9)) == (12, 1)
    device.write(0x3FB, 3)
    assert device.divisor == 0x10C
    assert device.read(0x3F9) == 0
    assert not sent


def test_interrupts_need_out2_and_an_enable() -> None:
    _, line, device = uart()
    device.write(0x3FC, 2)
    device.receive(b"ab")
    assert not line.level
    device.write(0x3F9, 1)
    assert not line.level
    device.write(0x3FC, 0x0A)
    assert line.level
    assert device.read(0x3FA) == 4
    assert device.read(0x3F8) == ord("a")
    assert device.read(0x3FD) & 1
    assert device.read(0x3F8) == ord("b")
    assert not line.level
    assert device.read(0x3FA) == 1


def test_empty_transmitter_interrupts_until_its_cause_is_read() -> None:
    _, line, device = uart()
    device.write(0x3FC, 8)
    device.write(0x3F9, 2)
    assert line.level
    assert device.read(0x3FA) == 2
    assert not line.level
    device.write(0x3F8, 65)
    assert line.level


def test_loopback_turns_bytes_and_modem_lines_round() -> None:
    sent, line, device = uart()
    device.write(0x3FC, 0x1F)
    device.write(0x3F9, 1)
    device.write(0x3F8, 0x55)
    assert device.read(0x3FE) == 0xF0
    assert device.read(0x3F8) == 0x55
    assert not sent
    assert not line.level


def test_what_is_typed_waits_for_request_to_send() -> None:
    _, line, device = uart()
    device.write(0x3F9, 1)
    device.write(0x3FC, 8)
    device.receive(b"ab")
    assert not line.level
    assert device.read(0x3F8) == 0  # a driver that clears the receiver at start-up loses nothing
    device.write(0x3FC, 0x0A)
    assert line.level
    device.write(0x3FC, 8)  # the byte in the receiver stays, the next is held back
    assert [device.read(0x3F8), device.read(0x3FD) & 1] == [ord("a"), 0]
    device.write(0x3FC, 0x0A)
    assert device.read(0x3F8) == ord("b")


def test_the_fifo_holds_16_bytes_and_tells_of_its_trigger() -> None:
    _, line, device = uart()
    device.write(0x3FA, 0x81)
    device.write(0x3F9, 1)
    device.write(0x3FC, 0x0A)
    device.receive(bytes(range(20)))
    assert (len(device.received), len(device.waiting)) == (16, 4)
    assert device.read(0x3FA) == 0xC4
    assert [device.read(0x3F8) for _ in range(20)] == list(range(20))
    assert device.read(0x3FA) == 0xC1
    assert not line.level
    device.receive(b"abc")  # fewer than the trigger: the time-out tells of them
    assert line.level
    assert device.read(0x3FA) == 0xCC
    device.write(0x3FA, 0x83)
    assert device.read(0x3FD) & 1 == 0
    assert not line.level


def test_switching_the_fifo_empties_it_and_off_it_is_not_seen() -> None:
    _, _, device = uart()
    device.write(0x3FC, 2)
    assert device.read(0x3FA) == 1
    device.write(0x3FA, 0xC0)  # not enabled: ignored
    assert device.read(0x3FA) == 1
    device.receive(b"ab")
    device.write(0x3FA, 1)
    assert device.read(0x3FA) == 0xC1
    assert device.read(0x3F8) == ord("b")  # what was in the one-byte receiver is gone, the next came after
    device.write(0x3FA, 0)
    assert device.read(0x3FA) == 1


def test_loopback_overruns() -> None:
    _, _, device = uart()
    device.write(0x3FC, 0x12)
    for byte in b"ab":
        device.write(0x3F8, byte)
    assert device.read(0x3FD) == 0x63
    assert device.read(0x3FD) == 0x61
    assert device.read(0x3F8) == ord("a")


@given(st.binary(max_size=60), st.lists(st.integers(0, 3), max_size=40))
def test_every_byte_arrives_once_and_in_order(data: bytes, acts: list[int]) -> None:
    _, line, device = uart()
    device.write(0x3FC, 0x0A)
    device.write(0x3F9, 1)
    found, rest = bytearray(), data
    for act in acts:
        if act == 0 and rest:
            device.receive(rest[:7])
            rest = rest[7:]
        elif act == 1:
            device.write(0x3FC, device.mcr ^ 2)
        elif device.read(0x3FD) & 1:
            found.append(device.read(0x3F8))
    device.receive(rest)
    device.write(0x3FC, 0x0A)
    while line.level:
        assert device.read(0x3FA) == 4
        found.append(device.read(0x3F8))
    assert bytes(found) == data


def test_scratch_register() -> None:
    _, _, device = uart()
    device.write(0x3FF, 0xA5)
    assert device.read(0x3FF) == 0xA5


@given(st.integers(0, 0xFFFF), st.sampled_from([1, 2, 4]), st.integers(0, 0xFFFFFFFF))
def test_unclaimed_ports_float(port: int, size: int, value: int) -> None:
    bus = PortBus([])
    bus.write(port, size, value)
    assert bus.read(port, size) == (1 << 8 * size) - 1


def test_wide_accesses_cover_neighbouring_ports() -> None:
    _, _, device = uart()
    bus = PortBus([device])
    bus.write(0x3FF, 2, 0x1277)
    assert bus.read(0x3FF, 4) == 0xFFFFFF77


def test_state_comes_back_as_often_as_wanted() -> None:
    sent, _, device = uart()
    clock = Clock()
    bus = PortBus([device, cmos(clock)])
    device.write(0x3FC, 2)
    device.receive(b"x")
    saved = bus.save()
    for _ in range(2):
        device.read(0x3F8)
        device.write(0x3FF, 9)
        device.receive(b"yz")
        bus.load(saved)
        assert list(device.received) == [ord("x")]
        assert device.scratch == 0
    assert sent == b""
