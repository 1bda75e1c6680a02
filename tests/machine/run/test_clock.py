"""The time-stamp counter is the virtual clock, at every level and whichever way it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.machine.conftest import Rig

DATA, USER_CODE, HANDLERS, TICK = 0x30000, 0x18000, 0x8000, 0x1_2345_6789
STORE = "8907 895704"  # mov [edi], eax; mov [edi + 4], edx


def read(rig: Rig, code: str) -> int:
    """What the code leaves at DATA."""
    rig.code(code + STORE + "f4")
    rig.cpu.set("rdi", DATA)
    rig.machine.clock.advance(TICK)
    assert rig.run() == "poweroff"
    return rig.memory.u64(DATA)


def test_it_reads_the_clock_and_not_the_host(rig: Rig) -> None:
    assert TICK <= read(rig, "0f31") < TICK + 100


def test_rdtscp_gives_the_processor_too(rig: Rig) -> None:
    rig.cpu.insn.wrmsr(0xC0000103, 7)
    assert TICK <= read(rig, "0f01f9") < TICK + 100
    assert rig.cpu.get("rcx") == 7


def test_the_native_answer_is_the_python_one(rig: Rig) -> None:
    rig.cpu.insn.wrmsr(0x10, 0xFFFF_FFFF_FFFF_0000)
    here = rig.cpu.insn.rdtsc()
    assert here == rig.cpu.insn.rdmsr(0x10) == 0xFFFF_FFFF_FFFF_0000
    assert read(rig, "0f31") - (here + TICK & 0xFFFF_FFFF_FFFF_FFFF) in range(100)


def test_level_3_reads_it_too_unless_tsd_forbids(rig: Rig) -> None:
    rig.code("0f31" + STORE + "cd80", USER_CODE)
    rig.gate(0x80, HANDLERS, dpl=3)
    rig.gate(13, HANDLERS)
    rig.code("f4", HANDLERS)
    rig.cpu.set("rdi", DATA)
    start = rig.cpu.save_registers()
    rig.user()
    assert rig.run() == "poweroff"
    assert rig.memory.u64(DATA) in range(100)
    assert rig.platform.seen == []
    rig.cpu.load_registers(start)
    rig.cpu.wake()
    rig.cpu.cr4 |= 4
    rig.user()
    assert rig.run() == "poweroff"
    assert rig.platform.seen == [(13, 0, None, USER_CODE)]
