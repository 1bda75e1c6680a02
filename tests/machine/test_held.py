"""Holding vCPUs, watching between slices, and running guest code on one vCPU alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import MachineError
from pvops_core.machine import MachineKind
from tests.machine.conftest import CODE, DATA, STACK

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.machine.conftest import Rig

FUNCTION, LANDING = 0x12000, 0x13000
# l: inc dword [edi]; jmp l
COUNT = "ff07 ebfc"


def counting(make_rig: Callable[..., Rig], kind: MachineKind, vcpus: int = 3) -> Rig:
    rig = make_rig(kind, vcpus=vcpus, slice_blocks=50)
    rig.code(COUNT)
    for vcpu in rig.machine.vcpus:
        vcpu.set("rdi", DATA + 4 * vcpu.index)
    return rig


def counts(rig: Rig) -> list[int]:
    return [rig.memory.u32(DATA + 4 * vcpu.index) for vcpu in rig.machine.vcpus]


def test_a_held_vcpu_does_not_run(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    rig = counting(make_rig, kind)
    rig.machine.vcpus[1].hold()
    rig.run(20_000)
    first, held, third = counts(rig)
    assert held == 0
    assert first
    assert third
    snapshot = rig.machine.snapshot()
    rig.machine.vcpus[1].release()
    rig.run(20_000)
    assert counts(rig)[1]
    rig.machine.restore(snapshot)
    assert rig.machine.vcpus[1].held


def test_watchers_are_asked_when_they_wish(make_rig: Callable[..., Rig]) -> None:
    rig = counting(make_rig, MachineKind.X86_64, 1)
    machine, asked = rig.machine, []

    def watcher() -> int | None:
        asked.append(machine.clock.ns)
        assert not machine.running
        if len(asked) == 5:
            machine.unwatch(watcher)
            return None
        return machine.clock.ns + 100

    machine.watch(watcher)
    rig.run(20_000)
    assert asked == [0, 105, 210, 315, 420]


def test_call_runs_one_vcpu_to_a_place(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    rig = counting(make_rig, kind)
    rig.run(20_000)
    rig.code("b807000000 c3", FUNCTION)  # mov eax, 7; ret
    before, vcpu = counts(rig), rig.machine.vcpus[2]
    registers = vcpu.save_registers()
    for _ in range(2):
        vcpu.push(LANDING)
        vcpu.rip = FUNCTION
        assert rig.machine.call(vcpu, LANDING, blocks=100)
        assert (vcpu.rip, vcpu.get("eax"), vcpu.rsp) == (LANDING, 7, STACK - 2 * 0x400)
    vcpu.load_registers(registers)
    assert counts(rig) == before
    rig.run(20_000)
    assert counts(rig)[2] > before[2]


@pytest.mark.parametrize("halted", [False, True])
def test_an_nmi_comes_whatever_the_flags_say_but_waits_for_the_release(
    make_rig: Callable[..., Rig], *, halted: bool
) -> None:
    rig = counting(make_rig, MachineKind.X86_64, 1)
    handler = 0x14000
    rig.gate(2, handler)
    rig.code("ff4710 48cf", handler)  # inc dword [rdi+16]; iretq
    vcpu = rig.cpu
    vcpu.hold()
    vcpu.halted = halted
    vcpu.raise_unmaskable()
    snapshot = rig.machine.snapshot()
    assert rig.run(1000) == "dead"
    vcpu.release()
    assert rig.run(1000) == "timeout"
    assert rig.memory.u32(DATA + 16) == 1
    assert counts(rig)[0]
    rig.machine.restore(snapshot)
    assert vcpu.unmaskable == [2]


def test_call_gives_up(make_rig: Callable[..., Rig]) -> None:
    rig = counting(make_rig, MachineKind.X86_64, 1)
    vcpu = rig.cpu
    assert not rig.machine.call(vcpu, LANDING, blocks=100)
    assert counts(rig)[0] == 100
    rig.code("f4", CODE + 0x100)
    vcpu.rip = CODE + 0x100
    assert not rig.machine.call(vcpu, LANDING, blocks=100)


def test_call_from_a_handler_is_refused(make_rig: Callable[..., Rig]) -> None:
    rig = counting(make_rig, MachineKind.X86_64, 1)
    rig.platform.on_exception = lambda vcpu, _vector: rig.machine.call(vcpu, LANDING, blocks=1)
    rig.code("0f0b")
    with pytest.raises(MachineError, match="defer"):
        rig.run(1000)
