"""Event channels: bound, closed, out of reach."""

from __future__ import annotations

from pvops_xen.hypervisor.abi import (
    EBUSY,
    EEXIST,
    EINVAL,
    ENOENT,
    ENOSPC,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    ESRCH,
    EvtchnOp,
    Virq,
)
from pvops_xen.hypervisor.events import channels
from pvops_xen.hypervisor.state import ChannelState

from plugins.xen.tests.events_rig import DOM0, NOBODY, OWN, SELF, Events, both


@both
def test_virtual_interrupts(events: Events) -> None:
    assert events.op(EvtchnOp.BIND_VIRQ, Virq.TIMER, 1) == 0
    port = events.out(2)
    assert events.op(EvtchnOp.BIND_VIRQ, Virq.TIMER, 1) == -EEXIST
    assert events.op(EvtchnOp.BIND_VIRQ, 24, 0) == -EINVAL
    assert events.op(EvtchnOp.BIND_VIRQ, Virq.TIMER, 2) == -ENOENT
    assert events.op(EvtchnOp.BIND_VIRQ, Virq.ARGO, 1) == -EINVAL
    assert events.op(EvtchnOp.BIND_VIRQ, Virq.ARGO, 0) == 0
    assert events.op(EvtchnOp.BIND_VCPU, events.out(2), 1) == 0
    assert events.op(EvtchnOp.BIND_VCPU, port, 0) == -EINVAL
    channels.raise_virq(events.hv, 1, Virq.TIMER)
    assert events.upcall(1)
    assert not events.upcall(0)
    assert events.send(port) == -EINVAL
    assert events.op(EvtchnOp.CLOSE, port) == 0
    channels.raise_virq(events.hv, 1, Virq.TIMER)
    assert not events.upcall(1)
    assert events.op(EvtchnOp.BIND_VIRQ, Virq.TIMER, 1) == 0


@both
def test_a_domain_talks_to_itself(events: Events) -> None:
    assert events.op(EvtchnOp.ALLOC_UNBOUND, SELF | SELF << 16) == 0
    waiting = events.out(1)
    assert events.send(waiting) == 0, "nobody listens; that is fine"
    assert events.op(EvtchnOp.BIND_INTERDOMAIN, SELF, waiting) == 0
    other = events.out(2)
    assert events.upcall(), "the new end may have missed something"
    assert events.op(EvtchnOp.BIND_INTERDOMAIN, SELF, waiting) == -EINVAL
    assert events.op(EvtchnOp.STATUS, SELF, other) == 0
    assert [events.out(index) for index in range(2, 6)] == [ChannelState.INTERDOMAIN, 0, OWN, waiting]
    events.hv.memory.set_u64(events.hv.domain.shared_info + 2048, 0)
    assert events.send(other) == 0
    assert channels.is_pending(events.hv, waiting)
    assert events.op(EvtchnOp.CLOSE, other) == 0
    assert events.op(EvtchnOp.STATUS, SELF, waiting) == 0
    assert [events.out(index) & 0xFFFF for index in (2, 4)] == [ChannelState.UNBOUND, OWN]


@both
def test_others_are_out_of_reach(events: Events) -> None:
    for command, words in (
        (EvtchnOp.ALLOC_UNBOUND, ()),
        (EvtchnOp.STATUS, (1,)),
        (EvtchnOp.RESET, ()),
    ):
        assert events.op(command, DOM0, *words) == -EPERM
        assert events.op(command, NOBODY, *words) == -ESRCH
    assert events.op(EvtchnOp.BIND_INTERDOMAIN, DOM0, 1) == -EINVAL
    assert events.op(EvtchnOp.BIND_INTERDOMAIN, NOBODY, 1) == -ESRCH
    assert events.op(EvtchnOp.ALLOC_UNBOUND, SELF | DOM0 << 16) == 0
    assert events.op(EvtchnOp.BIND_INTERDOMAIN, SELF, events.out(1)) == -EINVAL, "it waits for dom0"
    assert events.op(EvtchnOp.BIND_PIRQ, 1) == -EPERM
    assert events.op(EvtchnOp.BIND_PIRQ, 1 << 20) == -EINVAL


@both
def test_ports_that_are_none(events: Events) -> None:
    assert events.op(EvtchnOp.STATUS, SELF, 0) == 0
    assert events.out(2) == ChannelState.CLOSED
    assert events.op(EvtchnOp.STATUS, SELF, 64) == -EINVAL
    for command in (EvtchnOp.CLOSE, EvtchnOp.SEND):
        for port in (0, 5, 64, 1 << 31):
            assert events.op(command, port) == -EINVAL
    assert events.op(EvtchnOp.UNMASK, 5) == 0
    assert events.op(EvtchnOp.UNMASK, 64) == -EINVAL
    assert events.op(EvtchnOp.BIND_VCPU, 5, 0) == -EINVAL
    assert events.op(EvtchnOp.BIND_VCPU, 5, 2) == -ENOENT
    assert events.op(EvtchnOp.BIND_VCPU, events.ipi(), 0) == -EINVAL
    assert events.op(EvtchnOp.BIND_IPI, 2) == -ENOENT
    assert events.op(EvtchnOp.SET_PRIORITY, 1, 3) == -ENOSYS
    assert events.op(EvtchnOp.EXPAND_ARRAY, 1) == -EOPNOTSUPP
    assert events.op(EvtchnOp.RESET_CONT, SELF) == -EBUSY
    assert events.op(15) == -ENOSYS


def test_a_domain_has_so_many_channels_and_reset_closes_them(events: Events) -> None:
    assert [events.ipi() for _ in range(1023)] == list(range(1, 1024))
    assert events.op(EvtchnOp.BIND_IPI, 0) == -ENOSPC
    assert events.op(EvtchnOp.CLOSE, 500) == 0
    assert events.ipi() == 500
    assert events.op(EvtchnOp.RESET, SELF) == 0
    assert events.ipi() == 1
