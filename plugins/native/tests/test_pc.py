"""The PC: what ports cost, what is counted, and what comes back from a snapshot."""

from __future__ import annotations

import pytest
from pvops_native.pc import EXCEPTIONS, PORT_NS
from rig import KIND_LAYOUTS, Rig

from pvops_core.errors import UsageError


def test_a_port_takes_a_microsecond_each_way() -> None:
    with Rig(KIND_LAYOUTS[next(iter(KIND_LAYOUTS))]) as rig:
        began = rig.machine.clock.ns
        rig.platform.io_out(rig.cpu, 0x80, 1, 0)
        assert rig.platform.io_in(rig.cpu, 0x81, 2) == 0xFFFF
        assert rig.machine.clock.ns - began == 2 * PORT_NS


def test_the_console_and_the_counts_are_part_of_snapshots() -> None:
    with Rig("6.1-64") as rig:
        rig.platform.io_out(rig.cpu, 0x3F8, 1, ord("a"))
        rig.platform.traps["#PF"] += 3
        snapshot = rig.machine.snapshot()
        rig.platform.io_out(rig.cpu, 0x3F8, 1, ord("b"))
        rig.platform.traps.clear()
        console = rig.platform.console
        rig.machine.restore(snapshot)
        assert rig.platform.console is console
        assert bytes(console) == b"a"
        assert rig.platform.traps == {"#PF": 3}


def test_exceptions_have_the_manual_s_names() -> None:
    assert [EXCEPTIONS.index(name) for name in ("#DE", "#UD", "#DF", "#GP", "#PF", "#XM")] == [0, 6, 8, 13, 14, 19]


def test_options_that_are_none_are_refused() -> None:
    with pytest.raises(UsageError), Rig("6.1-64", rtc="-1"):
        pass
