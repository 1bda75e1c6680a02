"""Lazy modes: what waits in the ring, and until when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from plugins.lguest.tests.ops_rig import OpsHost

if TYPE_CHECKING:
    from .conftest import MakeHost
from plugins.lguest.tests.ops_fixtures import told


def test_lazy_mode_of_2_6_23(make_host: MakeHost) -> None:
    guest = OpsHost(make_host("2.6.23").init())
    ops, cpu = guest.ops, guest.vcpu
    ops.write_cr3(cpu, guest.host.gpgdir)
    assert told(guest, lambda: ops.set_lazy_mode(cpu, 3)) == []
    assert told(guest, lambda: (ops.set_lazy_mode(cpu, 1), ops.flush_tlb_user(cpu), ops.clts(cpu))) == []
    queued = [("FLUSH_TLB", 0, 0, 0), ("TS", 0, 0, 0), ("FLUSH_ASYNC", 0, 0, 0)]
    assert told(guest, lambda: ops.set_lazy_mode(cpu, 3)) == queued
    assert told(guest, lambda: ops.flush_tlb_user(cpu)) == []
    assert told(guest, lambda: ops.set_lazy_mode(cpu, 0)) == [queued[0], queued[2]]
    assert told(guest, lambda: ops.flush_tlb_user(cpu)) == [queued[0]]


@pytest.mark.parametrize("kind", ["mmu", "cpu"])
def test_lazy_modes_of_2_6_24(guest: OpsHost, kind: str) -> None:
    enter, leave = (getattr(guest.ops, f"{kind}_lazy_mode_{which}") for which in ("enter", "leave"))
    assert told(guest, lambda: (enter(guest.vcpu), guest.ops.clts(guest.vcpu))) == []
    assert told(guest, lambda: leave(guest.vcpu)) == [("TS", 0, 0, 0), ("FLUSH_ASYNC", 0, 0, 0)]
    assert told(guest, lambda: guest.ops.clts(guest.vcpu)) == [("TS", 0, 0, 0)]


def test_calls_that_may_not_wait_do_not(guest: OpsHost) -> None:
    """A direct call in lazy mode has the queued ones done before it."""
    ops, cpu = guest.ops, guest.vcpu
    ops.mmu_lazy_mode_enter(cpu)
    ops.clts(cpu)
    assert told(guest, lambda: ops.safe_halt(cpu)) == [("TS", 0, 0, 0), ("HALT", 0, 0, 0)]
