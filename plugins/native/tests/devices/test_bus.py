"""The port bus: ports that nobody claims, wide accesses, and the devices' state."""

from __future__ import annotations

from devices_rig import Clock, cmos, uart
from hypothesis import given
from hypothesis import strategies as st
from pvops_native.devices.bus import PortBus


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
