"""rdtsc at level 0 reads the virtual clock, on every vCPU and after the text changed."""

from __future__ import annotations

from .conftest import CODE, DATA, Rig

STORE = "8907 895704"  # mov [edi], eax; mov [edi + 4], edx
TICK = 12345


def run(rig: Rig, code: str, *, watch: bool = True) -> int:
    """What the code leaves at DATA."""
    if watch:
        rig.machine.watch_tsc(CODE, bytes.fromhex(code))
    rig.code(code + STORE + "f4")
    rig.cpu.set("rdi", DATA)
    rig.machine.clock.advance(TICK)
    rig.run()
    return rig.memory.u64(DATA)


def test_it_reads_the_clock_and_not_the_host(rig: Rig) -> None:
    assert TICK <= run(rig, "0f31") < TICK + 100


def test_rdtscp_gives_the_processor_too(rig: Rig) -> None:
    rig.cpu.set_msr(0xC0000103, 7)
    assert TICK <= run(rig, "0f01f9") < TICK + 100
    assert rig.cpu.get("rcx") == 7


def test_bytes_inside_another_instruction_are_left_alone(rig: Rig) -> None:
    assert run(rig, "b80f310000 ba00000000") == 0x310F


def test_an_address_whose_code_was_replaced_is_left_alone(rig: Rig) -> None:
    rig.machine.watch_tsc(CODE, bytes.fromhex("0f31"))
    assert run(rig, "31c0 31d2", watch=False) == 0
