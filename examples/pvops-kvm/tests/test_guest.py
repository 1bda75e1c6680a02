"""The built-in guest under KVM: the same results as on bare metal, with KVM's calls and its ops' effects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import MachineError
from pvops_core.guests.session import Session

if TYPE_CHECKING:
    from pvops_core.hookspecs import Backend

LIMIT = 200_000_000


@pytest.mark.parametrize("vcpus", [1, 2])
def test_a_guest_ends_as_on_bare_metal(backends: Mapping[str, Backend], vcpus: int) -> None:
    results = {}
    for name in ("native", "kvm"):
        with Session.builtin("6.1-64", name, backends=backends, vcpus=vcpus) as session:
            assert session.run(max_ns=LIMIT).reason == "poweroff"
            results[name] = session.report().results
            if name == "kvm":
                calls = session.switchboard.calls["lock_kick"]
                assert session.platform.hypercalls == {"KVM_HC_KICK_CPU": calls}
    assert results["kvm"] == results["native"]


@pytest.fixture
def session(backends: Mapping[str, Backend]) -> Iterator[Session]:
    with Session.builtin("6.1-64", "kvm", backends=backends, vcpus=3) as made:
        yield made


def _hook(session: Session, op: str) -> object:
    return session.switchboard.implementation(op).function


def test_a_vcpu_sleeps_until_it_is_kicked(session: Session) -> None:
    cpu = session.machine.vcpus[0]
    word = session.guest.symbols["boot_ops"]
    wait, kick = _hook(session, "lock_wait"), _hook(session, "lock_kick")
    assert callable(wait)
    assert callable(kick)
    wait(cpu, word, cpu.u8(word) ^ 1)
    assert not cpu.halted, "the byte has another value by now"
    wait(cpu, word, cpu.u8(word))
    assert cpu.halted
    kick(session.machine.vcpus[1], 0)
    assert not cpu.halted
    kick(session.machine.vcpus[1], 0)
    wait(cpu, word, cpu.u8(word))
    assert not cpu.halted, "a kick that came first is not lost"
    wait(cpu, word, cpu.u8(word))
    assert cpu.halted, "and it is used once"


def test_only_the_others_are_off_their_processor(session: Session) -> None:
    preempted = _hook(session, "vcpu_is_preempted")
    assert callable(preempted)
    cpu = session.machine.vcpus[1]
    assert [preempted(cpu, number) for number in range(3)] == [1, 0, 1]


def test_unused_kicks_belong_to_a_snapshot(session: Session) -> None:
    kick, wait = _hook(session, "lock_kick"), _hook(session, "lock_wait")
    assert callable(kick)
    assert callable(wait)
    cpu = session.machine.vcpus[0]
    word = session.guest.symbols["boot_ops"]
    kick(session.machine.vcpus[1], 0)
    before = session.machine.snapshot()
    for _ in range(2):
        session.machine.restore(before)
        wait(cpu, word, cpu.u8(word))
        assert not cpu.halted
        assert session.platform.hypercalls["KVM_HC_KICK_CPU"] == 1


def test_the_ops_refuse_another_platform(backends: Mapping[str, Backend]) -> None:
    ops = backends["kvm"].ops
    assert ops is not None
    with Session.builtin("6.1-64", "native", backends=backends) as session, pytest.raises(MachineError, match="KVM's"):
        ops(session)
