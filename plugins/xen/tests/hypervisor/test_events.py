"""Event channels: both interfaces, every operation and its errors, and that no event is lost."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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
from pvops_xen.hypervisor.events import channels, fifo
from pvops_xen.hypervisor.state import ChannelState

from pvops_core.kinds import MachineKind

if TYPE_CHECKING:
    from conftest import Bench

ARGUMENT, CONTROL, ARRAY = 0x110, 0x320, 0x330
SELF, OWN, DOM0, NOBODY = 0x7FF0, 1, 0, 9


class Events:
    """A domain's calls, and its own side of the FIFO interface."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.hv = bench.platform.hv
        self.memory = self.hv.memory

    def op(self, command: int, *words: int) -> int:
        address = self.bench.write(ARGUMENT, struct.pack("<6I", *(*words, 0, 0, 0, 0, 0, 0)[:6]))
        return self.bench.call(32, command, address)

    def out(self, index: int) -> int:
        return self.bench.cpu.u32(self.bench.va(ARGUMENT) + 4 * index)

    def ipi(self, vcpu: int = 0) -> int:
        assert self.op(EvtchnOp.BIND_IPI, vcpu) == 0
        return self.out(1)

    def send(self, port: int) -> int:
        return self.op(EvtchnOp.SEND, port)

    def upcall(self, vcpu: int = 0) -> bool:
        """Take the upcall: whether it was pending."""
        info = self.hv.domain.vcpus[vcpu].info
        was = bool(self.memory.u8(info))
        self.memory.set_u8(info, 0)
        return was

    # the FIFO interface

    def init_control(self, vcpu: int = 0, offset: int = 64) -> int:
        mfn = self.bench.mfn(CONTROL + vcpu)
        return self.op(EvtchnOp.INIT_CONTROL, mfn, 0, offset, vcpu)

    def expand(self, index: int = 0) -> int:
        pfn = ARRAY + index
        self.bench.write(pfn, struct.pack("<1024I", *[fifo.MASKED] * 1024))
        return self.op(EvtchnOp.EXPAND_ARRAY, self.bench.mfn(pfn), 0)

    def word(self, port: int, value: int | None = None) -> int:
        address = (self.bench.mfn(ARRAY + port // 1024) << 12) + port % 1024 * 4
        if value is not None:
            self.memory.set_u32(address, value)
        return self.memory.u32(address)

    def take(self, vcpu: int = 0) -> list[int]:
        """What a guest does in its upcall: every queue that is ready, from its head on, the highest priority first."""
        control = (self.bench.mfn(CONTROL + vcpu) << 12) + 64
        taken = []
        if not self.upcall(vcpu):
            return []
        ready = self.memory.u32(control)
        self.memory.set_u32(control, 0)
        for priority in range(16):
            port = self.memory.u32(control + 8 + 4 * priority) if ready >> priority & 1 else 0
            while port:
                word = self.word(port)
                self.word(port, word & ~(fifo.LINKED | fifo.LINK_MASK | fifo.PENDING))
                if word & fifo.PENDING and not word & fifo.MASKED:
                    taken.append(port)
                port = word & fifo.LINK_MASK
            self.memory.set_u32(control + 8 + 4 * priority, 0)
        return taken


@pytest.fixture
def events(make_bench: Callable[..., Bench], request: pytest.FixtureRequest) -> Events:
    return Events(make_bench(getattr(request, "param", MachineKind.X86_64), 2))


both = pytest.mark.parametrize("events", [MachineKind.X86_64, MachineKind.PAE], indirect=True, ids=["64", "pae"])


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


def test_masked_events_come_when_unmasked_and_early_ones_with_their_words(events: Events) -> None:
    early = events.ipi()
    events.send(early)
    events.upcall()
    assert events.init_control() == 0
    assert events.expand() == 0
    assert events.word(early) & fifo.PENDING
    assert events.take() == []
    assert events.op(EvtchnOp.UNMASK, early) == 0
    assert events.take() == [early]
    ports = []
    while not ports or ports[-1] < 1023:
        ports.append(events.ipi())
    assert events.op(EvtchnOp.BIND_IPI, 0) == -ENOSPC, "the toolstack's limit holds here too"


def test_what_cannot_be_set_up(events: Events) -> None:
    assert events.op(EvtchnOp.INIT_CONTROL, events.bench.mfn(CONTROL), 0, 0, 2) == -ENOENT
    for offset in (4, 4032, 1 << 31):
        assert events.init_control(offset=offset) == -EINVAL
    for mfn in (1, 1 << 30, events.bench.mfn(0x200)):
        assert events.op(EvtchnOp.INIT_CONTROL, mfn, 0, 0, 0) == -EINVAL
    assert events.op(EvtchnOp.EXPAND_ARRAY, events.bench.mfn(ARRAY), 0) == -EOPNOTSUPP
    assert events.init_control() == 0
    assert events.init_control() == -EINVAL
    assert events.op(EvtchnOp.EXPAND_ARRAY, events.bench.mfn(0x200), 0) == -EINVAL
    for _ in range(128):
        assert events.expand() == 0
    assert events.expand() == -ENOSPC
    assert events.op(EvtchnOp.SET_PRIORITY, 3, 16) == -EINVAL
    assert events.bench.mmuext(0, events.bench.mfn(ARRAY)) < 0, "Xen writes to it: no page table"


def test_a_vcpu_without_a_control_block_hears_nothing(events: Events) -> None:
    assert events.init_control() == 0
    assert events.expand() == 0
    port = events.ipi(1)
    events.op(EvtchnOp.UNMASK, port)
    assert events.send(port) == 0
    assert not events.upcall(1)
    assert events.init_control(1) == 0
    assert events.word(port) & fifo.PENDING


def test_reset_goes_back_to_two_levels(events: Events) -> None:
    assert events.init_control() == 0
    assert events.expand() == 0
    assert events.op(EvtchnOp.RESET, SELF) == 0
    port = events.ipi()
    assert events.send(port) == 0
    assert events.memory.u8(events.hv.domain.shared_info + 2048) == 1 << port
    assert events.init_control() == 0


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


def test_words_of_any_kind_do_no_harm(make_bench: Callable[..., Bench]) -> None:
    events = Events(make_bench(MachineKind.X86_64))
    events.init_control()
    events.expand()
    ports = [events.ipi() for _ in range(8)]

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, (1 << 32) - 1), st.sampled_from(ports)), max_size=20))
    def scribble(steps: list[tuple[int, int, int]]) -> None:
        for place, value, port in steps:
            if place < 18:
                events.memory.set_u32((events.bench.mfn(CONTROL) << 12) + 64 + 4 * place, value)
            else:
                events.word(place - 18, value)
            assert events.send(port) == 0
            assert events.op(EvtchnOp.UNMASK, port) == 0

    scribble()
