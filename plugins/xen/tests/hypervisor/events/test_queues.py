"""Queues of events: by priority, in order, each once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_xen.hypervisor.abi import (
    EvtchnOp,
)

if TYPE_CHECKING:
    from plugins.xen.tests.events_rig import Events


def test_queues_are_taken_by_priority_and_in_order(events: Events) -> None:
    assert events.init_control() == 0
    assert events.out(4) & 0xFF == 17
    assert events.expand() == 0
    ports = [events.ipi() for _ in range(5)]
    for port in ports:
        assert events.op(EvtchnOp.UNMASK, port) == 0
    assert events.op(EvtchnOp.SET_PRIORITY, ports[4], 0) == 0
    assert events.op(EvtchnOp.SET_PRIORITY, ports[0], 15) == 0
    for port in ports:
        events.send(port)
        events.send(port)
    assert events.take() == [ports[4], *ports[1:4], ports[0]]
    assert events.take() == []


def test_a_port_still_in_a_queue_is_not_given_out_again(events: Events) -> None:
    assert events.init_control() == 0
    assert events.expand() == 0
    port = events.ipi()
    events.op(EvtchnOp.UNMASK, port)
    events.send(port)
    assert events.op(EvtchnOp.CLOSE, port) == 0
    assert events.ipi() == port + 1
    assert events.take() == []
    assert events.ipi() == port
