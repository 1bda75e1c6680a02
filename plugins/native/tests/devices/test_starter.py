"""The register that starts a processor by its number."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_native.devices.bus import PortBus
from pvops_native.devices.starter import BASE, Starter


@settings(deadline=None)
@given(numbers=st.lists(st.integers(0, (1 << 32) - 1), max_size=5))
def test_every_whole_number_starts_one_and_is_read_back(numbers: list[int]) -> None:
    started: list[int] = []
    bus = PortBus([Starter(started.append)])
    for number in numbers:
        bus.write(BASE, 4, number)
        assert bus.read(BASE, 4) == number
    assert started == numbers


def test_three_bytes_start_nobody() -> None:
    started: list[int] = []
    bus = PortBus([Starter(started.append)])
    bus.write(BASE, 2, 1)
    bus.write(BASE + 2, 1, 0)
    assert started == []
    bus.write(BASE + 3, 1, 0)
    assert started == [1]
