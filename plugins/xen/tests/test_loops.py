"""A guest that loops for ever: its timer comes where events are let through, and a limit of time ends it."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.events.upcalls import upcall_due
from pvops_xen.hypervisor.state import EntryPoint

from pvops_core.machine.run.watchdog import run_within

if TYPE_CHECKING:
    from conftest import Bench

HANDLER = 0x108
SPIN = "ebfe"
VCPU_OP, EVENT_CHANNEL_OP = 24, 32
SET_SINGLESHOT_TIMER, BIND_VIRQ, UNMASK = 8, 1, 9
DUE_NS = 2_000_000


def arm(bench: Bench) -> None:
    """Bind the timer's virtual interrupt, unmask its port, and have it come once."""
    hv = bench.platform.hv
    hv.domain.vcpus[0].event = EntryPoint(0xE019 if bench.word == 4 else 0, bench.va(HANDLER), mask_events=True)
    request = bench.write(0x110, struct.pack("<III", 0, 0, 0))
    assert bench.call(EVENT_CHANNEL_OP, BIND_VIRQ, request) == 0
    (port,) = struct.unpack("<8xI", bench.cpu.read_virtual(request, 12))
    assert bench.call(EVENT_CHANNEL_OP, UNMASK, bench.write(0x110, struct.pack("<I", port))) == 0
    due = bench.machine.clock.ns + DUE_NS
    timer = struct.pack("<QI", due, 0) if bench.word == 4 else struct.pack("<QQ", due, 0)
    assert bench.call(VCPU_OP, SET_SINGLESHOT_TIMER, 0, bench.write(0x110, timer)) == 0


@pytest.mark.parametrize("masked", [False, True])
def test_the_timer_comes_to_a_loop_that_lets_events_through(bench: Bench, *, masked: bool) -> None:
    bench.write(HANDLER, bytes.fromhex(SPIN))
    arm(bench)
    hv = bench.platform.hv
    hv.memory.set_u8(hv.domain.vcpus[0].info + 1, masked)
    assert bench.run(SPIN).reason == "timeout"
    assert bench.cpu.rip == bench.va(0x100 if masked else HANDLER)
    assert bool(hv.memory.u8(hv.domain.vcpus[0].info)) is True  # evtchn_upcall_pending: it came, masked or not
    assert not upcall_due(hv, 0)  # either it is masked or the handler, which does not return, has masked it


def test_a_loop_ends_in_time_at_a_named_address(bench: Bench) -> None:
    start = bench.write(0x100, bytes.fromhex(f"90 {SPIN}"))
    bench.cpu.rip = start
    begin = time.monotonic()
    stop = run_within(bench.machine, lambda address: ("loop", address - start), max_seconds=0.5)
    assert 0.5 <= time.monotonic() - begin < 2
    assert stop.reason == "timeout"
    assert f"vcpu 0 at loop+0x1 ({start + 1:#x})" in stop.detail
