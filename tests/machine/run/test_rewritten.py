"""Text that one vCPU rewrites in its turn, and the others when theirs comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.machine import MachineKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.machine.conftest import Rig

CODE, DATA, CALLEES, GATES, PAGE = 0x10000, 0x30000, 0x40000, 0x38000, 0x1000
MANY = 12


class Pages:
    """Two vCPUs that call a function in each of some pages; a gate lets the first rewrite them."""

    def __init__(self, make_rig: Callable[..., Rig], kind: MachineKind, count: int) -> None:
        self.rig = rig = make_rig(kind, vcpus=2, slice_blocks=50)
        self.pages = [CALLEES + PAGE * number for number in range(count)]
        code = b""
        for number, page in enumerate(self.pages):
            rig.memory.write(page, bytes.fromhex("b801000000 c3"))  # mov eax, 1; ret
            code += b"\xe8" + (page - CODE - len(code) - 5).to_bytes(4, "little", signed=True)
            code += b"\x89\x47" + bytes([8 * number])  # mov [edi+8*number], eax
        code += b"\xeb" + (-len(code) - 2 & 0xFF).to_bytes(1, "little")
        rig.code_for_each(code.hex())
        assert rig.run(20_000) == "timeout"

    def rewrite(self, *, by_itself: bool, own: bool = True) -> None:
        """As if the first vCPU had stored 2 in each function."""
        machine, writer = self.rig.machine, self.rig.machine.vcpus[0]
        for page in self.pages:
            self.rig.memory.set_u8(page + 1, 2)
            if own:
                machine._slots[0].engine.remove_code(page, page + PAGE)
            machine.rewritten(writer, page, by_itself=by_itself)

    def said(self) -> set[int]:
        """What the functions gave in the last rounds of both."""
        self.rig.run(50_000)
        memory = self.rig.memory
        places = [DATA + 4 * vcpu.index + 8 * n for vcpu in self.rig.machine.vcpus for n in range(len(self.pages))]
        return {memory.u32(place) for place in places}


def dropped(pages: Pages) -> tuple[int, int]:
    """Ranges, and whole caches."""
    counts = pages.rig.machine.counts
    return counts["code_ranges_dropped"], counts["code_flushes"]


@pytest.mark.parametrize("by_itself", [True, False])
@pytest.mark.parametrize("count", [1, MANY])
def test_nobody_runs_old_text(kind: MachineKind, make_rig: Callable[..., Rig], count: int, by_itself: bool) -> None:  # noqa: FBT001
    pages = Pages(make_rig, kind, count)
    assert pages.said() == {1}
    pages.rewrite(by_itself=by_itself, own=by_itself)
    assert pages.said() == {2}


def test_pages_are_dropped_when_the_turn_comes_and_once(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    pages = Pages(make_rig, kind, 2)
    before = dropped(pages)
    for _ in range(1000):
        pages.rewrite(by_itself=True)
    assert dropped(pages) == before
    assert pages.said() == {2}
    assert dropped(pages) == (before[0] + 2, before[1])


def test_of_many_pages_all_is_dropped_once(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    pages = Pages(make_rig, kind, MANY)
    before = dropped(pages)
    pages.rewrite(by_itself=True)
    assert pages.said() == {2}
    assert dropped(pages) == (before[0], before[1] + 1)


def test_who_cannot_see_the_page_drops_all(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    pages = Pages(make_rig, kind, 1)
    rig, other = pages.rig, pages.rig.machine.vcpus[1]
    entry = rig.map(CALLEES, CALLEES, 3)  # for the kernel alone
    assert entry
    state = other.save_registers()
    pages.rewrite(by_itself=True)
    before = dropped(pages)
    rig.memory.write(CODE + 0x800, b"\x90\x90")
    other.flush_tlb()
    other.set_segments(3, 0x20, 0x18)
    other.rip = CODE + 0x800
    rig.machine.step(other)
    assert dropped(pages) == (before[0], before[1] + 1)
    other.load_registers(state)
    assert pages.said() == {2}


def test_a_turn_ends_when_another_executes(make_rig: Callable[..., Rig]) -> None:
    machine = make_rig(MachineKind.X86_64, vcpus=2).machine
    first, second = machine.vcpus
    for vcpu in machine.vcpus:
        machine.memory.write(CODE, b"\x90" * 16)
        vcpu.rip = CODE
    machine.step(first)
    turn = machine.turn
    machine.step(first)
    assert machine.turn == turn
    machine.step(second)
    assert machine.turn == turn + 1
    snapshot = machine.snapshot()
    machine.restore(snapshot)
    machine.step(second)
    assert machine.turn == turn + 2
