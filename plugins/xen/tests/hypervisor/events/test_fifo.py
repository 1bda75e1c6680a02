"""The interface of queues: its words, its control blocks, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pvops_xen.hypervisor.abi import (
    EINVAL,
    ENOENT,
    ENOSPC,
    EOPNOTSUPP,
    EvtchnOp,
)
from pvops_xen.hypervisor.events import fifo

from pvops_core.kinds import MachineKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Bench
from plugins.xen.tests.events_rig import ARRAY, CONTROL, SELF, Events


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
