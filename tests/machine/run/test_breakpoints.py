"""Breakpoints: each arrival is told once, whatever else ends slices, and nothing is left when they are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import MachineError
from pvops_core.machine import MachineKind
from tests.machine.conftest import CODE, DATA, UCS, USER_CODE, USER_STACK, USS, P, W

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine import Vcpu
    from tests.machine.conftest import Rig

# l: nop; inc dword [edi]; jmp l
LOOP = "90 ff07 ebfb"
INC = CODE + 1


def looping(make_rig: Callable[..., Rig], kind: MachineKind, vcpus: int = 1, **options: int) -> Rig:
    rig = make_rig(kind, vcpus=vcpus, **options)
    rig.code_for_each(LOOP)
    return rig


@pytest.mark.parametrize("slice_blocks", [3, 50, 1_000])
def test_every_arrival_is_told_once(kind: MachineKind, make_rig: Callable[..., Rig], slice_blocks: int) -> None:
    rig = looping(make_rig, kind, 2, slice_blocks=slice_blocks)
    told = [0, 0]

    def count(vcpu: Vcpu) -> None:
        assert vcpu.rip == INC
        assert rig.memory.u32(DATA + 4 * vcpu.index) == told[vcpu.index]
        told[vcpu.index] += 1

    rig.machine.break_at(INC, count)
    rig.run(20_000)
    assert told == [rig.memory.u32(DATA), rig.memory.u32(DATA + 4)]
    assert sum(told) > 1000


def test_a_stop_there_comes_before_the_instruction_and_goes_on_after_it(
    kind: MachineKind, make_rig: Callable[..., Rig]
) -> None:
    rig = looping(make_rig, kind)
    rig.machine.break_at(INC, lambda _vcpu: rig.machine.stop("here"))
    for number in range(5):
        assert rig.run(20_000) == "here"
        assert rig.cpu.rip == INC
        assert rig.memory.u32(DATA) == number
    snapshot = rig.machine.snapshot()
    assert rig.run(20_000) == "here"
    rig.machine.restore(snapshot)
    assert rig.run(20_000) == "here"
    assert rig.memory.u32(DATA) == 5


def test_an_action_may_go_elsewhere(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    rig = looping(make_rig, kind)
    skipped = []

    def skip(vcpu: Vcpu) -> None:
        skipped.append(vcpu.rip)
        vcpu.rip = CODE

    rig.machine.break_at(INC, skip)
    rig.run(5_000)
    assert rig.memory.u32(DATA) == 0
    assert len(skipped) > 10


def test_removed_ones_are_silent_and_those_beside_them_are_not(make_rig: Callable[..., Rig]) -> None:
    rig = looping(make_rig, MachineKind.X86_64)
    told: list[str] = []
    machine = rig.machine
    first = machine.break_at(INC, lambda _vcpu: told.append("first"))
    second = machine.break_at(INC, lambda _vcpu: told.append("second"))
    rig.run(1_000)
    assert told[:2] == ["first", "second"]
    machine.remove(first)
    told.clear()
    rig.run(1_000)
    assert set(told) == {"second"}
    machine.remove(second)
    machine.remove(second)
    told.clear()
    rig.run(1_000)
    assert not told


def test_they_change_between_slices_only(make_rig: Callable[..., Rig]) -> None:
    rig = looping(make_rig, MachineKind.X86_64)
    machine = rig.machine

    def greedy(_vcpu: Vcpu) -> None:
        machine.break_at(CODE, greedy)

    machine.break_at(INC, greedy)
    with pytest.raises(MachineError, match="defer it"):
        rig.run(1_000)


def test_an_error_in_an_action_ends_the_run_with_it(make_rig: Callable[..., Rig]) -> None:
    rig = looping(make_rig, MachineKind.X86_64)

    def fail(_vcpu: Vcpu) -> None:
        raise LookupError("here")

    rig.machine.break_at(INC, fail)
    with pytest.raises(LookupError, match="here"):
        rig.run(1_000)


@pytest.mark.parametrize("how", ["breakpoint", "steps"])
def test_page_faults_are_told_after_hooks_that_the_vcpu_cannot_see_are_gone(
    kind: MachineKind, make_rig: Callable[..., Rig], how: str
) -> None:
    """Removing a hook makes the engine look where it was; a fault in that must not be taken for the guest's."""
    rig = make_rig(kind)
    rig.map(CODE, CODE, P | W)  # for the kernel alone
    rig.code("90 90 90")
    rig.code("ff07 ff07", USER_CODE)  # inc dword [edi], which is mapped nowhere
    rig.cpu.set("rdi", 0x300000)
    faults: list[int] = []

    def fault(vcpu: Vcpu, vector: int) -> bool:
        faults.append(vector)
        vcpu.rip += 2
        if len(faults) == 2:
            vcpu.machine.stop("seen")
        return True

    rig.platform.on_exception = fault
    told: list[int] = []
    hook = rig.machine.break_at(CODE + 1, lambda vcpu: told.append(vcpu.rip))
    if how == "steps":
        rig.machine.step(rig.cpu)
        rig.machine.step(rig.cpu)
    else:
        rig.machine.break_at(CODE + 2, lambda vcpu: vcpu.machine.stop("there"))
        assert rig.run() == "there"
    assert told == [CODE + 1]
    rig.cpu.set_segments(3, UCS, USS)
    rig.cpu.rip, rig.cpu.rsp = USER_CODE, USER_STACK
    if how == "breakpoint":
        rig.machine.remove(hook)
    assert rig.run() == "seen"
    assert faults == [14, 14]


def test_the_end_of_single_steps_meets_no_fault_for_the_guest(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.X86_64)
    missing = 0x40_0000
    rig.memory.write(CODE, bytes.fromhex("ffe0"))  # jmp rax
    rig.cpu.set("rax", missing)
    rig.cpu.rip = CODE
    rig.platform.on_exception = lambda *_: rig.machine.stop("fault") or True  # type: ignore[func-returns-value]
    rig.machine.step(rig.cpu)
    assert rig.cpu.rip == missing
    assert rig.run() == "fault"
    assert [(vector, address) for vector, _error, address, _rip in rig.platform.seen] == [(14, missing)]


@pytest.mark.parametrize("others", [(), (DATA,)])
def test_one_that_only_looks_sees_an_arrival_once_whoever_stops_there(
    make_rig: Callable[..., Rig], others: tuple[int, ...]
) -> None:
    """With breakpoints that act at other places the engine stops where it stands, and comes there again."""
    rig = make_rig(MachineKind.X86_64)
    seen: list[int] = []

    def look(vcpu: Vcpu) -> None:
        seen.append(vcpu.rip)
        rig.machine.defer(lambda: None)

    rig.code("e8fb000000 e8f6000000 f4")
    rig.code("c3", CODE + 0x100)
    rig.machine.break_at(CODE + 0x100, look, acts=False)
    for address in others:
        rig.machine.break_at(address, lambda _vcpu: None)
    assert rig.run() == "poweroff"
    assert seen == [CODE + 0x100] * 2
