"""The built-in guest under KVM: the same results as on bare metal, with KVM's calls and its ops' effects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pvops_core.errors import MachineError
from pvops_core.machine import Reschedule
from pvops_core.session import Session
from pvops_core.testing.call import Caller
from pvops_core.testing.points import run_to

if TYPE_CHECKING:
    from pvops_core.backends import Backend

LIMIT = 200_000_000
LOCKS = ("queued_spin_lock_slowpath", "queued_spin_unlock", "lock_wait", "lock_kick")
FLUSHES = ("flush_tlb_multi", "tlb_remove_table")


@pytest.mark.parametrize("vcpus", [1, 2, 4])
def test_a_guest_ends_as_on_bare_metal(backends: Mapping[str, Backend], vcpus: int) -> None:
    results = {}
    for name in ("native", "kvm"):
        with Session.of_builtin("6.1-64", name, backends=backends, vcpus=vcpus) as session:
            assert session.run(max_ns=LIMIT).reason == "poweroff"
            memory = session.platform.console.partition(b"\n")[0]  # the guest says first how much it has
            results[name] = session.report().results, memory
            if name == "kvm":
                assert bool(session.platform.hypercalls["KVM_HC_KICK_CPU"]) == (vcpus > 1)
                assert set(session.platform.hypercalls) <= {"KVM_HC_KICK_CPU"}
    assert results["kvm"] == results["native"]


@pytest.mark.parametrize(("vcpus", "owner"), [(1, "native"), (2, "kvm")])
def test_one_cpu_has_bare_metals_locks_and_flushes(backends: Mapping[str, Backend], vcpus: int, owner: str) -> None:
    with Session.of_builtin("6.1-64", "kvm", backends=backends, vcpus=vcpus) as session:
        for op in (*LOCKS, *FLUSHES):
            assert session.switchboard.implementation(op).backend == owner
        for op in ("io_delay", "vcpu_is_preempted"):
            assert session.switchboard.implementation(op).backend == "kvm"


@pytest.fixture
def session(backends: Mapping[str, Backend]) -> Iterator[Session]:
    with Session.of_builtin("6.1-64", "kvm", backends=backends, vcpus=3, memory=4 << 20) as made:
        run_to(made, "patched")
        yield made


@pytest.fixture
def call(session: Session) -> Caller:
    return Caller(session)


def _hook(session: Session, op: str) -> Callable[..., Any]:
    function = session.switchboard.implementation(op).function
    assert function is not None
    return function


def _ops(session: Session) -> Any:  # noqa: ANN401 - the class of the example, which is loaded as a plugin
    return getattr(_hook(session, "io_delay"), "__self__")  # noqa: B009 - a method has it, a callable need not


def test_a_vcpu_sleeps_until_it_is_kicked(session: Session) -> None:
    cpu = session.machine.vcpus[0]
    word = session.guest.symbols["boot_ops"]
    wait, kick = _hook(session, "lock_wait"), _hook(session, "lock_kick")
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
    kick(session.machine.vcpus[1], 99)
    assert cpu.halted, "there is no such CPU"


def test_a_lock_that_nobody_holds_is_taken_and_given_back(call: Caller) -> None:
    lock = call.page()
    call("queued_spin_lock_slowpath", lock, 0)
    assert call.cpu.u8(lock) == 1
    done = call("queued_spin_unlock", lock)
    assert call.cpu.u8(lock) == 0
    assert not done.hypercalls, "nobody sleeps for it"


def test_waiters_get_the_lock_in_their_order(session: Session, call: Caller) -> None:
    lock, ops, cpu = call.page(), _ops(session), session.machine.vcpus[0]
    ops.waiters[lock] = [0, 1]
    call("queued_spin_lock_slowpath", lock, 0)
    assert cpu.u8(lock) == 3, "another one still sleeps for it"
    assert ops.waiters == {lock: [1]}
    done = call("queued_spin_unlock", lock)
    assert done.hypercalls == {"KVM_HC_KICK_CPU": 1}
    assert cpu.u8(lock) == 0
    ops.waiters[lock] = [0]
    call("queued_spin_lock_slowpath", lock, 0)
    assert cpu.u8(lock) == 1, "the last one"
    assert ops.waiters == {}


def test_who_cannot_have_the_lock_sleeps_for_it(session: Session, call: Caller) -> None:
    lock, ops, cpu = call.page(), _ops(session), session.machine.vcpus[0]
    for held, before, after in ((1, [], [0]), (3, [1], [1, 0]), (0, [1], [1, 0])):
        cpu.set_u8(lock, held)
        ops.waiters = {lock: list(before)} if before else {}
        with pytest.raises(Reschedule):
            ops.queued_spin_lock_slowpath(cpu, lock)
        assert cpu.halted
        assert cpu.u8(lock) == (3 if held else 0)
        assert ops.waiters == {lock: after}
        cpu.wake()


def test_a_cpu_off_its_processor_is_known_by_its_mark(session: Session, call: Caller) -> None:
    ops, memory = _ops(session), session.machine.memory
    assert [call("vcpu_is_preempted", number).result for number in range(3)] == [0, 0, 0], "they are not online yet"
    ops.come_online(session.machine.vcpus[1])
    assert call("vcpu_is_preempted", 1).result == 0, "it never lost a processor"
    memory.set_u8(ops.host.area(1) + 16, 1)
    assert [call("vcpu_is_preempted", number).result for number in range(3)] == [0, 1, 0]


def test_a_remote_flush_waits_for_who_is_off_its_processor(session: Session, call: Caller) -> None:
    ops, memory, other = _ops(session), session.machine.memory, session.machine.vcpus[1]
    ops.come_online(other)
    mask, info = call.page(), call.page()
    call.cpu.set_u64(mask, 0b10)
    call.cpu.set_u64(info + 16, (1 << 64) - 1)  # everything
    place = ops.host.area(1) + 16
    call("flush_tlb_multi", mask, info)
    assert memory.u8(place) == 0, "it runs: flushed at once"
    memory.set_u8(place, 1)
    call("flush_tlb_multi", mask, info)
    assert memory.u8(place) == 3, "it is told to flush"
    before = session.platform.flushes
    ops.host.before_entry(other)
    assert memory.u8(place) == 0
    assert session.platform.flushes == before + 1


def test_unused_kicks_and_marks_belong_to_a_snapshot(session: Session) -> None:
    kick, wait, ops = _hook(session, "lock_kick"), _hook(session, "lock_wait"), _ops(session)
    cpu = session.machine.vcpus[0]
    word = session.guest.symbols["boot_ops"]
    ops.come_online(cpu)
    kick(session.machine.vcpus[1], 0)
    before = session.machine.snapshot()
    for _ in range(2):
        session.machine.restore(before)
        assert ops.online == {0}
        ops.come_online(session.machine.vcpus[1])
        wait(cpu, word, cpu.u8(word))
        assert not cpu.halted
        assert session.platform.hypercalls["KVM_HC_KICK_CPU"] == 1


def test_the_ops_refuse_another_platform(backends: Mapping[str, Backend]) -> None:
    ops = backends["kvm"].ops
    assert ops is not None
    with (
        Session.of_builtin("6.1-64", "native", backends=backends) as session,
        pytest.raises(MachineError, match="KVM's"),
    ):
        ops(session)
