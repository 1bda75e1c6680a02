"""The page that guest and host share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_lguest.host.data import LguestData

if TYPE_CHECKING:
    from plugins.lguest.tests.rig import Host

    from .conftest import MakeHost
from plugins.lguest.tests.interrupts_rig import ON, looping


def test_a_waiting_interrupt_is_shown_to_later_guests(make_host: MakeHost) -> None:
    host = make_host("2.6.35")
    host.program(looping(host, enabled=0))
    host.state.interrupts.raise_irq(0)
    host.ends(100_000)
    assert host.get(host.member("irq_pending")) == ON
    host.set(host.member("irq_enabled"), ON)
    host.ends(100_000)
    assert host.get(host.member("irq_pending")) == 0


def test_the_shared_page_is_read_where_the_guest_put_it(host: Host) -> None:
    looping(host)
    assert isinstance(host.state.data, LguestData)
    assert host.state.data.irq_enabled == ON
