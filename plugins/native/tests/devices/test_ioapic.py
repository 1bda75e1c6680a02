from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pvops_native.devices import ioapic as chip
from pvops_native.devices.apic import FIXED, LDR, NMI, LocalApic
from pvops_native.devices.ioapic import IoApic


@attrs.define
class Bus:
    """Three local APICs, and every message that the I/O APIC sent them."""

    apics: list[LocalApic] = attrs.field(factory=list)
    sent: list[tuple[int, int, list[int]]] = attrs.field(factory=list)

    def send(self, mode: int, vector: int, addressed: Callable[[LocalApic], bool]) -> None:
        self.sent.append((mode, vector, [apic.number for apic in self.apics if addressed(apic)]))


@pytest.fixture
def bus() -> Bus:
    made = Bus()
    made.apics = [LocalApic(number, lambda: 0, made.send) for number in range(3)]
    for apic in made.apics:
        apic.write(LDR, 1 << 24 + apic.number)
    return made


@pytest.fixture
def device(bus: Bus) -> IoApic:
    return IoApic(bus.send)


def put(device: IoApic, register: int, value: int) -> None:
    device.write(chip.SELECT, register)
    device.write(chip.WINDOW, value)


def get(device: IoApic, register: int) -> int:
    device.write(chip.SELECT, register)
    return device.read(chip.WINDOW)


def redirect(device: IoApic, number: int, low: int, destination: int = 0) -> None:
    put(device, 0x11 + 2 * number, destination << 24)
    put(device, 0x10 + 2 * number, low)


def test_it_says_what_it_is(device: IoApic) -> None:
    assert get(device, 1) == 0x0017_0011
    put(device, 1, 0)
    assert get(device, 1) == 0x0017_0011
    put(device, 0, 0x0300_0000)
    assert get(device, 0) == get(device, 2) == 0x0300_0000
    assert get(device, 0x40) == 0
    assert device.read(0x20) == 0
    assert [get(device, 0x10 + 2 * number) for number in range(chip.INPUTS)] == [chip.MASKED] * chip.INPUTS


@given(number=st.integers(0, 23), low=st.integers(0, 0xFFFFFFFF), high=st.integers(0, 0xFFFFFFFF))
def test_entries_keep_all_but_what_is_read_only(number: int, low: int, high: int) -> None:
    device = IoApic(lambda *_: None)
    put(device, 0x11 + 2 * number, high)
    put(device, 0x10 + 2 * number, low)
    assert get(device, 0x10 + 2 * number) == low & ~(1 << 12 | 1 << 14)
    assert get(device, 0x11 + 2 * number) == high


def test_an_edge_is_sent_once_and_lost_where_masked(bus: Bus, device: IoApic) -> None:
    device.pulse(2)
    redirect(device, 2, 0x30, 1)
    assert bus.sent == []
    device.set_line(2, level=True)
    device.set_line(2, level=True)
    assert bus.sent == [(FIXED, 0x30, [1])]
    device.set_line(2, level=False)
    device.pulse(2)
    assert len(bus.sent) == 2


def test_a_level_is_sent_again_after_its_end_while_it_lasts(bus: Bus, device: IoApic) -> None:
    redirect(device, 9, chip.LEVEL | 0x41)
    device.set_line(9, level=True)
    assert get(device, 0x10 + 18) & chip.REMOTE_IRR
    device.ended(0x40)
    assert len(bus.sent) == 1
    device.ended(0x41)
    assert len(bus.sent) == 2
    device.set_line(9, level=False)
    device.ended(0x41)
    assert len(bus.sent) == 2
    assert not get(device, 0x10 + 18) & chip.REMOTE_IRR


def test_a_level_that_lasts_is_sent_when_unmasked(bus: Bus, device: IoApic) -> None:
    device.set_line(9, level=True)
    redirect(device, 9, chip.LEVEL | 0x41)
    assert bus.sent == [(FIXED, 0x41, [0])]


@pytest.mark.parametrize(
    ("low", "destination", "who"),
    [(0x30, 2, [2]), (0x30, 0xFF, [0, 1, 2]), (0x30 | chip.LOGICAL, 5, [0, 2]), (0x30, 7, [])],
)
def test_destinations(bus: Bus, device: IoApic, low: int, destination: int, who: list[int]) -> None:
    redirect(device, 4, low, destination)
    device.pulse(4)
    assert bus.sent == [(FIXED, 0x30, who)]
    assert [apic.number for apic in bus.apics if device.reaches(4, apic)] == who


def test_another_delivery_mode_goes_out_as_it_is(bus: Bus, device: IoApic) -> None:
    redirect(device, 0, NMI << 8)
    device.pulse(0)
    assert bus.sent == [(NMI, 0, [0])]
