"""Clocks, and the APIC that is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plugins.lguest.tests.ops_rig import OpsHost

if TYPE_CHECKING:
    from .conftest import MakeHost
from plugins.lguest.tests.ops_fixtures import told


def test_time(make_host: MakeHost) -> None:
    guest = OpsHost(make_host(rtc="86400").init())
    ops, cpu, host = guest.ops, guest.vcpu, guest.host
    assert ops.get_wallclock(cpu) == 86400
    assert ops.get_cpu_khz(cpu) == 1_000_000
    before = ops.sched_clock(cpu)
    host.machine.clock.advance(12345)
    assert ops.sched_clock(cpu) == before + 12345
    host.set(host.member("tsc_khz"), 0)
    assert ops.sched_clock(cpu) == 86400 * 10**9 + host.get(host.member("time") + 4)


def test_there_is_no_apic(guest: OpsHost) -> None:
    assert (
        told(
            guest, lambda: (guest.ops.apic_write(guest.vcpu, 0x20, 1), guest.ops.apic_write_atomic(guest.vcpu, 0x20, 1))
        )
        == []
    )
    assert guest.ops.apic_read(guest.vcpu, 0x20) == 0
