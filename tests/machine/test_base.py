"""Who observes a machine's exceptions: any number, before the platform, and beside its snapshots."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pvops_core.kinds import MachineKind
from tests.machine.conftest import CODE, Rig

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

Make = Callable[..., Rig]
UD, PF = 6, 14
NOWHERE = 0x70_0000


def skip(vcpu: Vcpu, _vector: int) -> bool:
    vcpu.rip += 2
    return True


def seen_by(told: list[tuple[str, int, int]], name: str, *, answers: bool = False) -> Callable[..., bool]:
    def observer(vcpu: Vcpu, vector: int, error_code: int | None, address: int | None) -> bool:
        del error_code, address
        told.append((name, vector, vcpu.rip))
        if answers:
            vcpu.rip += 2
        return answers

    return observer


def test_all_are_told_the_newest_first_and_one_may_answer(make_rig: Make) -> None:
    rig, told = make_rig(MachineKind.X86_64), list[tuple[str, int, int]]()
    first, second = seen_by(told, "first", answers=True), seen_by(told, "second")
    for observer in (first, second, second):
        rig.machine.observe(observer)
    rig.code("0f0b f4")  # ud2; hlt
    assert rig.run(1000) == "poweroff"
    assert told == [("second", UD, CODE), ("first", UD, CODE)]
    assert not rig.platform.seen


def test_nobody_is_told_who_ignores(make_rig: Make) -> None:
    rig, told = make_rig(MachineKind.I386), list[tuple[str, int, int]]()
    rig.platform.on_exception = skip
    first, second = seen_by(told, "first"), seen_by(told, "second")
    rig.machine.observe(first)
    snapshot = rig.machine.snapshot()
    rig.machine.observe(second)
    rig.machine.ignore(first)
    rig.machine.ignore(first)
    rig.machine.restore(snapshot)
    rig.code("0f0b f4")
    assert rig.run(1000) == "poweroff"
    assert [name for name, _vector, _rip in told] == ["second"]


def test_what_python_raises_for_the_guest_is_seen_too(make_rig: Make) -> None:
    rig, told = make_rig(MachineKind.X86_64), list[tuple[str, int, int]]()
    rig.platform.on_exception = skip
    rig.machine.observe(seen_by(told, "observer"))
    rig.machine.gates.map(CODE + 0x100, 1)
    rig.machine.memory.write(CODE + 0x100, rig.machine.gates.text)
    rig.machine.gates.bind(0, lambda vcpu: vcpu.set_word(NOWHERE, 1))
    rig.cpu.rip = CODE + 0x100
    rig.run(1000)
    assert told[0] == ("observer", PF, CODE + 0x100)
    assert rig.platform.seen[0] == (PF, 2, NOWHERE, CODE + 0x100)
