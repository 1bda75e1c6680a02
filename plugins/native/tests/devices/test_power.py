"""The ways in which a guest ends its run by a port."""

from __future__ import annotations

import pytest
from pvops_native.devices.bus import PortBus
from pvops_native.devices.power import Power


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
