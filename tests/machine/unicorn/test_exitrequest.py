"""Where a stop takes effect: at the instruction for hooks that act, at the block's end for what only looks."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import pytest

from pvops_core.machine import MachineKind
from pvops_core.machine.unicorn import exitrequest
from tests.machine.conftest import CODE, DATA

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine import Vcpu
    from tests.machine.conftest import Rig

# l: nop; inc dword [edi]; inc dword [edi]; jmp l
LOOP = "90 ff07 ff07 ebf9"
FIRST, SECOND = CODE + 1, CODE + 3


@pytest.fixture
def rig(make_rig: Callable[..., Rig], kind: MachineKind) -> Rig:
    rig = make_rig(kind)
    rig.code(LOOP)
    rig.cpu.set("rdi", DATA)
    return rig


def unchecked(rig: Rig) -> bool:
    """Whether the engine translates without looking for a stop inside of blocks."""
    offset = exitrequest.switch_offset()
    assert offset is not None, "this build of the library is the one that the project depends on"
    engine = rig.machine._slots[0].engine
    return bool(ctypes.c_uint8.from_address(engine.handle + offset).value)


def test_only_what_acts_has_code_look_for_stops(rig: Rig) -> None:
    machine = rig.machine
    assert unchecked(rig)
    looking = machine.break_at(FIRST, lambda _vcpu: None, acts=False)
    assert unchecked(rig)
    acting = machine.break_at(SECOND, lambda _vcpu: None)
    assert not unchecked(rig)
    machine.remove(acting)
    assert unchecked(rig)
    acting = machine.break_at(FIRST, lambda _vcpu: None)
    assert not unchecked(rig)
    machine.remove(acting)
    machine.remove(looking)
    assert unchecked(rig)


def test_single_steps_stop_at_each_instruction(rig: Rig) -> None:
    places = []
    for _ in range(4):
        rig.machine.step(rig.cpu)
        places.append(rig.cpu.rip)
    assert places == [FIRST, SECOND, CODE + 5, CODE]
    rig.run(1_000)
    assert unchecked(rig)


def test_gates_and_calls_keep_their_places(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.X86_64)
    rig.machine.gates.map(CODE + 0x100, 1)
    assert not unchecked(rig)


def test_one_that_looks_is_told_of_every_arrival_before_the_instruction(rig: Rig) -> None:
    seen: list[int] = []
    rig.machine.break_at(SECOND, lambda vcpu: seen.append(vcpu.rip), acts=False)
    rig.run(20_000)
    assert set(seen) == {SECOND}
    assert 2 * len(seen) - 1 <= rig.memory.u32(DATA) <= 2 * len(seen)
    assert len(seen) > 1_000


def test_a_stop_that_one_asks_for_that_only_looks_comes_at_the_end_of_the_block(rig: Rig) -> None:
    rig.machine.break_at(FIRST, lambda _vcpu: rig.machine.stop("here"), acts=False)
    for number in (1, 2, 3):
        assert rig.run(20_000) == "here"
        assert rig.cpu.rip == CODE
        assert rig.memory.u32(DATA) == 2 * number


def test_what_one_defers_is_done_before_it_is_told_again(rig: Rig) -> None:
    order: list[str] = []

    def tell(_vcpu: Vcpu) -> None:
        order.append("told")
        rig.machine.defer(lambda: order.append("done"))

    rig.machine.break_at(FIRST, tell, acts=False)
    rig.run(5_000)
    assert order == ["told", "done"] * (len(order) // 2)
    assert len(order) > 100


def test_one_that_acts_beside_one_that_looks_stops_where_it_stands(rig: Rig) -> None:
    looked: list[int] = []
    rig.machine.break_at(SECOND, lambda vcpu: looked.append(vcpu.rip), acts=False)
    acting = rig.machine.break_at(SECOND, lambda _vcpu: rig.machine.stop("here"))
    for number in (1, 3, 5):
        assert rig.run(20_000) == "here"
        assert rig.cpu.rip == SECOND
        assert rig.memory.u32(DATA) == number
    rig.machine.remove(acting)
    rig.run(20_000)
    assert len(looked) > 1_000


def test_both_ways_take_the_same_virtual_time(make_rig: Callable[..., Rig], kind: MachineKind) -> None:
    hashes = []
    for acts in (False, True):
        rig = make_rig(kind, vcpus=2, seed=3)
        rig.code(LOOP)
        for vcpu in rig.machine.vcpus:
            vcpu.set("rdi", DATA + 4 * vcpu.index)
        rig.machine.break_at(FIRST, lambda _vcpu: None, acts=acts)
        rig.run(200_000)
        hashes.append((rig.machine.log.sha256, rig.machine.clock.ns, rig.memory.u32(DATA), rig.memory.u32(DATA + 4)))
    assert hashes[0] == hashes[1]
