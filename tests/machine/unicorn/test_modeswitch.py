"""Between two modes: what is saved is what the vCPU shows, and what is committed is all that changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.machine import MachineKind
from pvops_core.machine.cpu.segmentation.segments import flat
from pvops_core.machine.unicorn.modeswitch import packed_segment
from tests.machine.conftest import CODE, DATA, HANDLERS, KCS, KSS, TABLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.machine.conftest import Rig

NAMES = ("rax", "rbx", "rsp", "r12", "rflags", "ds", "fs_base")


@pytest.fixture
def long(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig(MachineKind.X86_64)


def packed(selector: int, cpl: int, *, code: bool) -> bytes:
    return packed_segment(selector, flat(cpl, code=code, bits=64))


def test_what_is_saved_is_what_the_vcpu_shows(long: Rig) -> None:
    cpu = long.cpu
    cpu.set("gs_base", 0xFFFF_8000_1234_5000)
    assert cpu.mode_switch.save() == (0, KCS, KSS, 0xFFFF_8000_1234_5000)


@pytest.mark.parametrize("level", [1, 3])
def test_a_mode_is_taken_up_and_nothing_else_changes(long: Rig, level: int) -> None:
    cpu = long.cpu
    cpu.set("rbx", 0x1234)
    before = {name: cpu.get(name) for name in NAMES}
    cpu.mode_switch.save()
    cs, ss = packed(0xE033, level, code=True), packed(0xE02B, level, code=False)
    cpu.mode_switch.commit(level, cs, ss, root=long.root, gs_base=0x7000)
    cpu.rip = CODE
    assert cpu.mode_switch.save() == (level, 0xE033, 0xE02B, 0x7000)
    assert (cpu.get("cs"), cpu.get("ss"), cpu.cr3) == (0xE033, 0xE02B, long.root)
    assert {name: cpu.get(name) for name in NAMES} == before


def test_the_new_root_holds_for_what_is_executed(long: Rig) -> None:
    """A page that only the second root maps is read by code that has run under the first one."""
    other = TABLES + 0x40000
    long.memory.write(other, long.memory.read(long.root, 0x1000))
    # Its own first entry: a copy of the tables below, in which one page is another frame.
    tables = [long.root]
    for _ in range(3):
        tables.append(long.memory.u64(tables[-1]) & 0xF_FFFF_F000)
    for level, table in enumerate(tables):
        copy = other + 0x1000 * level
        long.memory.write(copy, long.memory.read(table, 0x1000))
        if level < 3:
            long.memory.set_u64(copy, copy + 0x1000 | 7)
    long.memory.set_u64(other + 0x3000 + (DATA >> 12) * 8, HANDLERS | 7)
    long.memory.set_u64(DATA, 1)
    long.memory.set_u64(HANDLERS, 2)
    long.code(bytes.fromhex(f"488b0425{DATA.to_bytes(4, 'little').hex()} f4".replace(" ", "")))  # mov rax, [DATA]; hlt
    for root, level, value in ((long.root, 0, 1), (other, 1, 2), (long.root, 0, 1)):
        cpu = long.cpu
        cpu.wake()
        cpu.mode_switch.save()
        cs, ss = packed(KCS | level, level, code=True), packed(KSS | level, level, code=False)
        cpu.mode_switch.commit(level, cs, ss, root=root, gs_base=0)
        cpu.rip = CODE
        cpu.flush_tlb()
        long.machine.step(cpu)
        assert cpu.get("rax") == value


def test_to_the_user_and_all_else_stays(long: Rig) -> None:
    cpu = long.cpu
    _, cs, ss, gs_base = cpu.mode_switch.save()
    cpu.mode_switch.commit_user()
    cpu.rip = CODE
    assert cpu.mode_switch.save() == (3, cs, ss, gs_base)
