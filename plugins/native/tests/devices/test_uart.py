"""The serial port: bytes both ways, its interrupts, its FIFO, loopback."""

from __future__ import annotations

from devices_rig import uart
from hypothesis import given
from hypothesis import strategies as st


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
