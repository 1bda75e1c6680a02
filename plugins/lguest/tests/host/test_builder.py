"""A guest put together: memory divided, and what does not fit."""

from __future__ import annotations

import pytest
from pvops_lguest.host import builder
from pvops_lguest.host.memory import GuestMemory
from pvops_lguest.platform import LguestPlatform

from plugins.lguest.tests.platform_rig import platform
from plugins.lguest.tests.rig import BASE, RAM
from pvops_core.errors import MachineError, UsageError
from pvops_core.machine import Machine, MachineKind


def test_options_are_checked() -> None:
    with Machine(MachineKind.I386) as machine:
        with pytest.raises(UsageError, match="rtc"):
            platform(machine, rtc="tomorrow")
        with pytest.raises(UsageError, match=r"abi='2\.4'"):
            platform(machine, abi="2.4")


def test_the_host_needs_memory_too() -> None:
    with (
        Machine(MachineKind.I386, memory=builder.HOST_AREA) as machine,
        pytest.raises(MachineError, match="host alone"),
    ):
        platform(machine)
    assert LguestPlatform.machine_memory(RAM) == RAM + builder.DEVICE_AREA + builder.HOST_AREA


def test_tables_that_do_not_fit() -> None:
    with Machine(MachineKind.I386, memory=RAM) as machine, pytest.raises(MachineError, match="do not fit"):
        builder.make_linear_tables(GuestMemory(machine.memory, 0x10000), 0xF000, BASE)
