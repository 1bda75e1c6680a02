"""The ring of queued hypercalls: order, wrap-around and a full ring."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pvops_lguest.host.abi import ABIS, DONE, RING_SIZE, Call

from .ops_rig import OpsHost

if TYPE_CHECKING:
    from .conftest import MakeHost
    from .rig import Host


def names(host: Host) -> list[tuple[str, int, int]]:
    """Calls in the order in which the host did them: name, first argument, whether from the ring."""
    calls = [dict(event.fields) for event in host.machine.log.events if event.kind == "hypercall"]
    return [(str(call["name"]), int(call["arg1"]), int(call["queued"])) for call in calls]


STEPS = st.lists(st.tuples(st.sampled_from(["queue", "direct", "flush"]), st.integers(0, 0xFFF)), max_size=200)


@pytest.mark.parametrize("abi", ABIS)
@settings(max_examples=15, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_calls_are_done_in_the_order_they_were_made(
    make_host: MakeHost, abi: str, steps: list[tuple[str, int]]
) -> None:
    host = OpsHost(make_host(abi).init())
    first = len(names(host.host))
    expected: list[tuple[str, int]] = []
    for kind, value in steps:
        if kind == "queue":
            host.ops.async_hcall(host.vcpu, Call.LOAD_TLS, value << 3, 1)
            expected.append(("LOAD_TLS", value << 3))
        elif kind == "direct":
            host.ops.hcall(host.vcpu, Call.TS, value)
            expected.append(("TS", value))
        else:
            host.ops.hcall(host.vcpu, Call.FLUSH_ASYNC)
            expected.append(("FLUSH_ASYNC", 0))
    host.ops.hcall(host.vcpu, Call.FLUSH_ASYNC)
    expected.append(("FLUSH_ASYNC", 0))
    assert [(name, argument) for name, argument, _ in names(host.host)[first:]] == expected
    status = host.host.machine.memory.read(host.host.member("hcall_status"), RING_SIZE)
    assert status == bytes([DONE]) * RING_SIZE


def test_a_full_ring_makes_the_next_call_direct(make_host: MakeHost) -> None:
    host = OpsHost(make_host().init())
    for index in range(RING_SIZE):
        host.ops.async_hcall(host.vcpu, Call.SET_PMD, index, 1)
    assert len(names(host.host)) == 1
    host.ops.async_hcall(host.vcpu, Call.SET_PMD, RING_SIZE, 1)
    done = names(host.host)[1:]
    assert [argument for _, argument, _ in done] == list(range(RING_SIZE + 1))
    assert [queued for _, _, queued in done] == [1] * RING_SIZE + [0]
    assert host.host.platform.batched == {"SET_PMD": RING_SIZE}


def test_the_ring_wraps(make_host: MakeHost) -> None:
    host = OpsHost(make_host().init())
    for round_ in range(5):
        for index in range(40):
            host.ops.async_hcall(host.vcpu, Call.SET_PMD, round_ * 40 + index, 1)
        host.ops.hcall(host.vcpu, Call.FLUSH_ASYNC)
    queued = [argument for name, argument, _ in names(host.host) if name == "SET_PMD"]
    assert queued == list(range(200))
    assert host.host.state.next_hcall == 200 % RING_SIZE


def test_a_gap_stops_the_drain(make_host: MakeHost) -> None:
    """Entries behind a free one are not looked at: the guest fills the ring in order."""
    host = make_host().init()
    status = host.member("hcall_status")
    host.machine.memory.set_u8(status + 1, 0)
    host.set(host.member("hcalls") + 16, 8)
    host.call(Call.FLUSH_ASYNC)
    assert host.machine.memory.u8(status + 1) == 0
    assert host.state.next_hcall == 0


def test_a_bad_queued_call_kills_and_those_behind_it_do_not_happen(make_host: MakeHost) -> None:
    host = OpsHost(make_host().init())
    host.ops.async_hcall(host.vcpu, Call.TS, 8)
    host.ops.async_hcall(host.vcpu, Call.SET_STACK, 0x68, 0, 0)
    host.ops.async_hcall(host.vcpu, Call.TS, 0)
    host.ops.hcall(host.vcpu, Call.FLUSH_ASYNC)
    assert host.host.state.ts
    assert [name for name, _, _ in names(host.host)] == ["LGUEST_INIT", "TS", "SET_STACK"]
    ends = [dict(event.fields)["reason"] for event in host.host.machine.log.events if event.kind == "guest end"]
    assert ends == ["bad stack segment 104"]
