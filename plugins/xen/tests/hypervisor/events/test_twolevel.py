"""The interface of two levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pvops_xen.hypervisor.abi import (
    EvtchnOp,
)
from pvops_xen.hypervisor.events import fifo

from pvops_core.kinds import MachineKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Bench
from plugins.xen.tests.events_rig import Events, both


@both
def test_an_event_is_pending_until_it_is_taken(events: Events) -> None:
    port = events.ipi()
    shared = events.hv.domain.shared_info
    assert events.send(port) == 0
    assert events.upcall()
    assert events.memory.u8(shared + 2048) == 1 << port
    events.memory.set_u8(shared + 2048, 0)
    assert events.send(port) == 0
    assert not events.upcall(), "the word is selected still"
    events.memory.set_u32(events.hv.domain.vcpus[0].info + events.hv.abi.pending_sel, 0)
    events.memory.set_u8(shared + 2048, 0)
    events.memory.set_u8(shared + events.hv.abi.evtchn_mask, 0xFF)
    assert events.send(port) == 0
    assert not events.upcall()
    assert events.op(EvtchnOp.UNMASK, port) == 0
    assert events.upcall()
    assert events.memory.u8(shared + events.hv.abi.evtchn_mask) == 0xFF & ~(1 << port)


def test_no_event_is_lost(make_bench: Callable[..., Bench]) -> None:
    events = Events(make_bench(MachineKind.X86_64, 2))
    events.init_control(0)
    events.init_control(1)
    events.expand()
    ports = [events.ipi(index % 2) for index in range(6)]
    step = st.one_of(
        st.tuples(st.just("send"), st.sampled_from(ports)),
        st.tuples(st.just("mask"), st.sampled_from(ports)),
        st.tuples(st.just("unmask"), st.sampled_from(ports)),
        st.tuples(st.just("priority"), st.sampled_from(ports), st.integers(0, 15)),
        st.tuples(st.just("take"), st.integers(0, 1)),
    )

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(step, max_size=30))
    def play(steps: list[tuple[str, int]]) -> None:
        expected: set[int] = set()
        masked: set[int] = set()

        def take(vcpu: int) -> None:
            mine = {port for port in expected - masked if ports.index(port) % 2 == vcpu}
            assert set(events.take(vcpu)) == mine
            expected.difference_update(mine)

        for port in ports:
            events.op(EvtchnOp.UNMASK, port)
        events.take(0)
        events.take(1)
        for name, port, *more in steps:
            if name == "send":
                events.send(port)
                expected.add(port)
            elif name == "mask":
                take(ports.index(port) % 2)  # a guest masks what is in no queue
                events.word(port, events.word(port) | fifo.MASKED)
                masked.add(port)
            elif name == "unmask":
                events.op(EvtchnOp.UNMASK, port)
                masked.discard(port)
            elif name == "priority":
                events.op(EvtchnOp.SET_PRIORITY, port, *more)
            else:
                take(port)
        for port in ports:
            events.op(EvtchnOp.UNMASK, port)
        masked.clear()
        take(0)
        take(1)

    play()
