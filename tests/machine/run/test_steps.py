"""Steps in turn and pauses: a run comes out where somebody looks, and goes on as if nobody had."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from pvops_core.machine import MachineKind
from pvops_core.machine.exits.handlers import Handlers
from pvops_core.testing.assembly import assemble
from tests.machine.conftest import CODE, DATA, GATES, call_a_gate

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine import Machine, Vcpu
    from tests.machine.conftest import Rig


def step(rig: Rig, vcpu: Vcpu | None = None) -> int:
    """One step; where it has led."""
    vcpu = vcpu or rig.cpu
    assert rig.machine.run(step=[vcpu], max_ns=100_000).reason == "stepped"
    return vcpu.rip


def test_each_step_is_one_instruction(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(kind)
    text = f"nop; mov ecx, 2; mov edi, {DATA}; rep stosb; L: dec ecx; js L; M: jmp M"
    rig.code(assemble(text, kind.bits, CODE))
    nop, mov_ecx, mov_edi, stos, dec = CODE, CODE + 1, CODE + 6, CODE + 11, CODE + 13
    assert [step(rig) for _ in range(3)] == [mov_ecx, mov_edi, stos]
    assert step(rig) == stos  # one repetition
    while rig.cpu.rip == stos:
        step(rig)
    assert rig.memory.read(DATA, 3) == bytes(3)
    assert rig.cpu.rip == dec
    assert nop < step(rig)
    for _ in range(3):
        rig.cpu.set("ecx", 1)
        step(rig)
    assert step(rig) == step(rig)  # the jump to itself


def test_a_step_is_made_when_its_turn_comes(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.X86_64, vcpus=2, slice_blocks=10)
    rig.code_for_each("90 ff07 ebfb")
    first, second = rig.machine.vcpus
    places = {CODE, CODE + 1, CODE + 3}
    for _ in range(100):
        before = second.rip
        assert step(rig, second) in places - {before}
    assert rig.memory.u32(DATA) > 10  # the other ran in its own turns
    assert rig.machine.run(step=[first, second], max_ns=100_000).reason == "stepped"


def test_a_step_of_one_that_sleeps_waits_until_it_wakes(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.X86_64, vcpus=2)
    rig.code_for_each("90 ff07 ebfb")
    second = rig.machine.vcpus[1]
    second.halted = True
    assert rig.machine.run(step=[second], max_ns=10_000).reason == "timeout"
    second.wake()
    assert step(rig, second) == CODE + 1


def test_a_step_onto_a_gate_comes_before_its_call(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(kind)
    called = call_a_gate(rig, kind)
    assert [step(rig), step(rig)][1] == GATES
    assert not called
    assert step(rig) == rig.machine.gates.return_address
    assert called == [0]
    step(rig)
    assert rig.run() == "poweroff"
    assert called == [0]


def test_a_step_over_hlt_has_it_sleep(rig: Rig) -> None:
    rig.code("f4 90")
    assert rig.machine.run(step=[rig.cpu]).reason == "poweroff"  # which the rig makes of it
    assert rig.cpu.halted


def test_what_comes_first_at_a_place_keeps_the_step_waiting(make_rig: Callable[..., Rig]) -> None:
    """A breakpoint that defers something stops the engine before the instruction, which is not executed by that."""
    rig = make_rig(MachineKind.X86_64)
    rig.code("90 90 ebfe")
    done: list[int] = []
    rig.machine.break_at(CODE, lambda vcpu: rig.machine.defer(lambda: done.append(vcpu.rip)))
    assert step(rig) == CODE + 1
    assert done == [CODE]


def test_a_pause_goes_on_where_it_was_and_never_in_place_of_an_end(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.X86_64)
    rig.code("90 ff07 90 ff07 ebf8")
    rig.cpu.set("rdi", DATA)
    found = rig.machine.break_at(CODE + 1, lambda _: rig.machine.pause())
    for number in range(3):
        assert rig.run() == "paused"
        assert (rig.cpu.rip, rig.memory.u32(DATA)) == (CODE + 1, 2 * number)
    rig.machine.break_at(CODE + 4, lambda _: rig.machine.stop("crash"))
    rig.machine.break_at(CODE + 4, lambda _: rig.machine.pause())
    rig.machine.remove(found)
    assert rig.run() == "crash"
    assert rig.run() != "paused"


def test_one_that_is_gone_leaves_nobody_standing(make_rig: Callable[..., Rig]) -> None:
    """Taken away and put back, a breakpoint is met at the next arrival, though the stack pointer be the same."""
    rig = make_rig(MachineKind.X86_64)
    rig.code("90 90 ebfc")
    for _ in range(3):
        found = rig.machine.break_at(CODE + 1, lambda _: rig.machine.pause())
        assert rig.run() == "paused"
        assert rig.cpu.rip == CODE + 1
        rig.machine.remove(found)
        step(rig)


def test_any_thread_may_pause(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.X86_64, vcpus=2, slice_blocks=1000)
    rig.code_for_each("90 ff07 ebfb")

    def pausing(machine: Machine) -> None:
        machine.pause(at_once=False)

    for _ in range(20):
        timer = threading.Timer(0.002, pausing, [rig.machine])
        timer.start()
        assert rig.run(10**12) == "paused"
        timer.join()


def test_steps_cost_nothing_when_they_are_over(make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    rig = make_rig(MachineKind.X86_64)
    rig.code("90 ff07 ebfb")
    rig.cpu.set("rdi", DATA)
    step(rig)
    called: list[int] = []
    monkeypatch.setattr(Handlers, "run_at", lambda _self, _action, at: called.append(at))
    rig.run(100_000)
    assert not called


@pytest.mark.parametrize("how", ["stops", "steps"])
def test_a_pause_that_was_jumped_over_is_none_wherever_the_run_was_cut(make_rig: Callable[..., Rig], how: str) -> None:
    """A vCPU that spins gives up its turn behind a ``pause``; what a jump has led to seems to go on, cut there."""

    def whole(*, cut: bool) -> tuple[int, str]:
        rig = make_rig(MachineKind.X86_64, vcpus=2, slice_blocks=4_000)
        text = "mov ecx, 1500; L: jmp M; pause; M: dec ecx; jnz L; hlt"
        rig.code(assemble(text, 64, CODE))
        behind = CODE + len(assemble("mov ecx, 1500; L: jmp M; pause; M: nop", 64, CODE)) - 1
        assert rig.memory.read(behind - 2, 2) == bytes.fromhex("f390")
        if cut and how == "stops":
            rig.machine.break_at(behind, lambda _: rig.machine.pause())
        step = rig.machine.vcpus if cut and how == "steps" else ()
        while (stop := rig.machine.run(step=step)).reason in {"paused", "stepped"}:
            pass
        assert stop.reason == "poweroff"
        return rig.machine.clock.ns, rig.machine.log.sha256

    assert whole(cut=True) == whole(cut=False)
