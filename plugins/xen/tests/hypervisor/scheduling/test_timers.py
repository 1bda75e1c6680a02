"""Timers of vCPUs."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pvops_xen.hypervisor.state import EntryPoint

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.calls_rig import ARGUMENT


def test_a_guest_that_runs_is_ticked_and_one_that_sleeps_is_not_woken(bench64: Bench) -> None:
    hv = bench64.platform.hv
    hv.domain.vcpus[0].event = EntryPoint(0, bench64.write(0x108, b"\x0f\x0b"), mask_events=True)
    bench64.call(32, 1, bench64.write(ARGUMENT, struct.pack("<3I", 0, 0, 0)))
    assert bench64.run("b81d000000bf010000000f05 ebfe").reason == "dead"
    hv.memory.set_u8(hv.domain.vcpus[0].info + 1, 0)
    bench64.cpu.wake()
    stop = bench64.run("ebfe")
    assert stop.detail.startswith("Unhandled: vec 6"), "at 10 ms its callback is entered"
    assert 10_000_000 <= bench64.machine.clock.ns < 11_000_000


def test_times_that_are_mistakes(bench: Bench) -> None:
    state, now = bench.platform.hv.domain.vcpus[0], bench.machine.clock

    def set_timer(timeout: int) -> int | None:
        args = (timeout,) if bench.word == 8 else (timeout & 0xFFFF_FFFF, timeout >> 32)
        assert bench.call(15, *args) == 0
        return state.singleshot

    assert set_timer(5) == 5
    assert set_timer(0) is None
    for wrong in (1 << 63, (1 << 64) - 1, 1 << 51):
        assert set_timer(wrong) == now.ns + 100_000_000
    assert bench.call(24, 8, 0, bench.write(ARGUMENT, struct.pack("<QI", 1 << 63, 0))) == 0
    assert state.singleshot == 0
