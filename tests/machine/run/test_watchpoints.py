"""Watchpoints: each access to watched memory is told, by whatever address, and stops before the next instruction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import MachineError
from pvops_core.machine import MachineKind
from pvops_core.testing.assembly import assemble
from tests.machine.conftest import CODE, DATA, GATES, P, W, call_a_gate

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine import Vcpu
    from tests.machine.conftest import Rig

ALIAS = 0x60000


def prepared(make_rig: Callable[..., Rig], kind: MachineKind, text: str, **options: int) -> Rig:
    rig = make_rig(kind, **options)
    rig.code(assemble(text, kind.bits, CODE))
    return rig


def test_stores_are_told_at_the_instruction_and_stop_behind_it(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    rig = prepared(make_rig, kind, f"mov eax, [{DATA}]; mov dword ptr [{DATA}], 7; nop; hlt")
    at: list[int] = []

    def told(vcpu: Vcpu) -> None:
        at.append(vcpu.rip)
        rig.machine.pause()

    found = rig.machine.watch_at(DATA, 4, told)
    length = len(assemble(f"mov eax, [{DATA}]", kind.bits, CODE))
    assert rig.run() == "paused"
    assert at == [CODE + length]
    assert rig.memory.u32(DATA) == 7
    assert rig.memory.u8(rig.cpu.rip) == 0x90  # the nop
    rig.machine.remove(found)
    rig.cpu.rip = CODE
    assert rig.run() == "poweroff"
    assert len(at) == 1


@pytest.mark.parametrize(
    ("loads", "stores", "told"), [(True, False, 1), (False, True, 1), (True, True, 2)], ids=["loads", "stores", "both"]
)
def test_what_is_asked_for_is_told(make_rig: Callable[..., Rig], *, loads: bool, stores: bool, told: int) -> None:
    rig = prepared(make_rig, MachineKind.X86_64, f"mov eax, [{DATA}]; mov [{DATA}], eax; mov [{DATA + 4}], eax; hlt")
    seen: list[int] = []
    rig.machine.watch_at(DATA, 4, lambda vcpu: seen.append(vcpu.rip), loads=loads, stores=stores)
    assert rig.run() == "poweroff"
    assert len(seen) == told


@pytest.mark.parametrize("place", [ALIAS + 0xFFC, ALIAS + 0x1000])
def test_an_alias_is_the_same_memory_and_a_stretch_may_cross_pages(make_rig: Callable[..., Rig], place: int) -> None:
    rig = prepared(make_rig, MachineKind.X86_64, f"mov [{place}], eax; hlt")
    for page in range(2):
        rig.map(ALIAS + 0x1000 * page, DATA + 0x1000 * page, P | W)
    seen: list[int] = []
    rig.machine.watch_at(DATA + 0xFFC, 8, lambda vcpu: seen.append(vcpu.rip))
    rig.machine.watch_at(0x700000, 8, lambda vcpu: seen.append(vcpu.rip))  # mapped nowhere
    assert rig.run() == "poweroff"
    assert seen == [CODE]


def test_every_vcpu_is_watched_and_the_run_is_as_if_none_were(make_rig: Callable[..., Rig]) -> None:
    def whole(*, watched: bool) -> tuple[int, str, list[int]]:
        rig = prepared(make_rig, MachineKind.X86_64, f"mov ecx, 300; L: inc dword ptr [{DATA}]; loop L; hlt", vcpus=2)
        seen = [0, 0]

        def told(vcpu: Vcpu) -> None:
            seen[vcpu.index] += 1
            rig.machine.pause()

        if watched:
            rig.machine.watch_at(DATA, 4, told)
        while (reason := rig.run()) == "paused":
            pass
        assert reason == "poweroff"
        return rig.machine.clock.ns, rig.machine.log.sha256, seen

    with_it, without = whole(watched=True), whole(watched=False)
    assert with_it[:2] == without[:2]
    assert with_it[2] == [300, 300]


def test_a_gate_behind_the_access_is_called_once(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(kind)
    called = call_a_gate(rig, kind)
    rig.machine.watch_at(rig.cpu.rsp - kind.pointer_size, 4, lambda _: rig.machine.pause())
    assert rig.run() == "paused"
    assert (rig.cpu.rip, called) == (GATES, [])
    assert rig.run() == "poweroff"
    assert called == [0]


def test_a_breakpoint_at_a_gate_comes_before_its_call(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(kind)
    called = call_a_gate(rig, kind)
    rig.machine.break_at(GATES, lambda _: rig.machine.pause())
    assert rig.run() == "paused"
    assert (rig.cpu.rip, called) == (GATES, [])
    assert rig.run() == "poweroff"
    assert called == [0]


def test_an_error_of_an_action_ends_the_run(make_rig: Callable[..., Rig]) -> None:
    rig = prepared(make_rig, MachineKind.X86_64, f"mov [{DATA}], eax; hlt")

    def fail(_vcpu: Vcpu) -> None:
        raise LookupError("here")

    rig.machine.watch_at(DATA, 4, fail)
    with pytest.raises(LookupError, match="here"):
        rig.run()


def test_too_many_too_long_and_changes_from_a_handler_are_refused(make_rig: Callable[..., Rig]) -> None:
    rig = prepared(make_rig, MachineKind.X86_64, "nop; hlt")
    for length in (0, 4097, 1 << 63):
        with pytest.raises(MachineError, match="cannot be watched"):
            rig.machine.watch_at(DATA, length, print)
    found = [rig.machine.watch_at(DATA + 8 * number, 8, print) for number in range(4)]
    with pytest.raises(MachineError, match="no more than 4"):
        rig.machine.watch_at(DATA, 4, print)
    for each in found * 2:
        rig.machine.remove(each)
    rig.machine.break_at(CODE, lambda _: rig.machine.remove(found[0]))
    with pytest.raises(MachineError, match="defer it"):
        rig.run()
