"""Bare metal as a whole: interrupts, sleep, ports, more processors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_native.devices.apic import ICR_LOW, SPURIOUS
from pvops_native.tables import LEVELS, TableBuilder
from rig import CODE, GDT, IDT, KIND_LAYOUTS, SCRATCH, STACK, Rig

from pvops_core.errors import MachineError
from pvops_core.kinds import MachineKind
from pvops_core.machine import Machine
from pvops_core.x86 import PAGE

HANDLER = CODE + 0x800
OTHER = CODE + 0x400
POWER_OFF = bytes.fromhex("66ba0406 66b80020 66ef f4")


@pytest.fixture(params=KIND_LAYOUTS.values())
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with Rig(request.param, vcpus=2) as rig:
        for vcpu in rig.machine.vcpus:
            vcpu.insn.lidt(rig.at(IDT), 0x7FF)
            vcpu.rsp = rig.at(STACK) + 0x800 + 0x400 * vcpu.index
        rig.machine.vcpus[1].halt()
        yield rig


def gate(rig: Rig, vector: int, code: str) -> None:
    """An interrupt gate to a handler at HANDLER."""
    target, selector = rig.at(HANDLER), rig.cpu.selector("cs")
    low = target & 0xFFFF | selector << 16 | 0x8E00 << 32 | (target >> 16 & 0xFFFF) << 48
    if rig.kind.bits == 64:
        rig.machine.memory.set_u64(IDT + 16 * vector, low)
        rig.machine.memory.set_u64(IDT + 16 * vector + 8, target >> 32)
    else:
        rig.machine.memory.set_u64(IDT + 8 * vector, low)
    rig.machine.memory.write(HANDLER, bytes.fromhex(code))


def start_timer(rig: Rig) -> None:
    rig.ops.init_IRQ(rig.cpu)
    rig.ops.time_init(rig.cpu)


# inc dword [esi]; mov al, 0x20; out 0x20, al; iret
COUNT_32 = "ff06 b020 e620 cf"
COUNT_64 = "ff06 b020 e620 48cf"


def counting(rig: Rig) -> str:
    return COUNT_64 if rig.kind.bits == 64 else COUNT_32


def test_ticks_wake_a_sleeper_on_time(rig: Rig) -> None:
    start_timer(rig)
    gate(rig, 0x20, counting(rig))
    rig.cpu.set("rsi", rig.at(SCRATCH))
    # 1: sti; hlt; cmp dword [rsi], 5; jb 1b; power off
    reason = rig.run(bytes.fromhex("fb f4 833e05 72f9") + POWER_OFF, max_ns=10**9)
    assert reason == "poweroff"
    assert rig.machine.memory.u32(SCRATCH) == 5
    assert rig.machine.clock.ns == pytest.approx(50_000_000, rel=0.01)


def test_ticks_interrupt_a_loop(rig: Rig) -> None:
    start_timer(rig)
    gate(rig, 0x20, counting(rig))
    rig.cpu.set("rsi", rig.at(SCRATCH))
    reason = rig.run(bytes.fromhex("fb 90 833e03 72fa") + POWER_OFF, max_ns=10**9)
    assert reason == "poweroff"
    assert rig.machine.clock.ns == pytest.approx(30_000_000, rel=0.05)


@pytest.mark.parametrize(("code", "timer"), [("fbf4", False), ("faf4", True)])
def test_sleeping_without_a_timer_or_with_interrupts_off_is_death(rig: Rig, code: str, timer: bool) -> None:  # noqa: FBT001
    if timer:
        start_timer(rig)
    assert rig.run(bytes.fromhex(code), max_ns=10**9) == "dead"


def test_a_masked_tick_wakes_nobody(rig: Rig) -> None:
    start_timer(rig)
    rig.cpu.insn.out(0x21, 0xFF, 1)
    assert rig.run(bytes.fromhex("fb f4"), max_ns=10**9) == "dead"


def test_ports_take_time_and_unknown_ones_float(rig: Rig) -> None:
    before = rig.machine.clock.ns
    assert rig.cpu.insn.in_(0x2F8, 4) == 0xFFFF_FFFF
    rig.cpu.insn.out(0x2F8, 1, 1)
    assert rig.machine.clock.ns - before == 2000


def test_serial_output_is_the_console(rig: Rig) -> None:
    for byte in b"hello":
        rig.cpu.insn.out(0x3F8, byte, 1)
    assert rig.platform.console == b"hello"


def test_a_second_processor_starts_in_the_first_one_s_world(rig: Rig) -> None:
    rig.symbols["secondary_entry"] = rig.at(OTHER)
    rig.machine.memory.write(OTHER, bytes.fromhex("c706 cdab0000 fa f4"))  # mov dword [rsi], 0xabcd; cli; hlt
    rig.cpu.set("rdi", rig.at(SCRATCH))
    rig.machine.vcpus[1].set("rsi", rig.at(SCRATCH))
    # mov dx, 0x608; mov eax, 1; out dx, eax; 1: cmp dword [rdi], 0; je 1b; power off
    code = bytes.fromhex("66ba0806 b801000000 ef 833f00 74fb") + POWER_OFF
    assert rig.run(code, max_ns=10**8) == "poweroff"
    assert rig.machine.memory.u32(SCRATCH) == 0xABCD
    other = rig.machine.vcpus[1]
    assert (other.cr3, other.cr4, other.cpl) == (rig.cpu.cr3, rig.cpu.cr4, 0)


def test_starting_nobody(rig: Rig) -> None:
    for number in (0, 2, 0xFFFF_FFFF):
        rig.cpu.insn.out(0x608, number, 4)
    assert rig.machine.vcpus[1].halted
    with pytest.raises(MachineError, match="secondary_entry"):
        rig.cpu.insn.out(0x608, 1, 4)


def test_an_interrupt_from_another_processor(rig: Rig) -> None:
    for cpu in rig.machine.vcpus:
        rig.ops.apic_write(cpu, SPURIOUS, 0x1FF)
    gate(rig, 0x55, "ff06 fa f4")
    other = rig.machine.vcpus[1]
    other.set("rsi", rig.at(SCRATCH))
    other.interrupts_enabled = True
    rig.cpu.set("rdi", rig.at(SCRATCH))
    rig.ops.apic_write(rig.cpu, ICR_LOW, 0xC0055)  # to all others
    assert rig.run(bytes.fromhex("833f00 74fb") + POWER_OFF, max_ns=10**8) == "poweroff"
    assert rig.machine.memory.u32(SCRATCH) == 1


def test_exceptions_are_counted_and_delivered(rig: Rig) -> None:
    gate(rig, 6, POWER_OFF.hex())
    assert rig.run(bytes.fromhex("0f0b")) == "poweroff"
    assert rig.platform.traps == {"#UD": 1}


def test_devices_are_part_of_snapshots(rig: Rig) -> None:
    start_timer(rig)
    rig.cpu.insn.out(0x3F8, 65, 1)
    start = rig.machine.snapshot()
    event = rig.platform.board.next_event({0})
    rig.machine.clock.advance(123_456_789)
    rig.platform.board.service()
    rig.cpu.insn.out(0x3F8, 66, 1)
    rig.cpu.insn.out(0x21, 0xFF, 1)
    rig.machine.restore(start)
    assert rig.platform.board.next_event({0}) == event
    assert rig.platform.console == b"A"


@settings(max_examples=20, derandomize=True, deadline=None)
@given(kind=st.sampled_from(MachineKind), frames=st.integers(1, 600), probe=st.integers(0, 599))
def test_first_tables_map_memory_twice(kind: MachineKind, frames: int, probe: int) -> None:
    with Machine(kind, memory=4 << 20) as machine:
        base = 0xFFFF_FFFF_8000_0000 if kind is MachineKind.X86_64 else 0xC000_0000
        root = TableBuilder(machine.memory, kind, 900).build(frames, base)
        for start in (0, base):
            assert translate(machine, kind, root, start + probe * PAGE) == (probe * PAGE if probe < frames else None)


def translate(machine: Machine, kind: MachineKind, root: int, va: int) -> int | None:
    table = root
    for shift, width in LEVELS[kind]:
        place = table + (va >> shift & (1 << width) - 1) * kind.entry_size
        entry = int.from_bytes(machine.memory.read(place, kind.entry_size), "little")
        if not entry & 1:
            return None
        table = entry & 0xFFFF_FFFF_F000
    return table


def test_more_memory_than_fits_above_the_kernel_is_refused() -> None:
    with Machine(MachineKind.I386, memory=1 << 20) as machine, pytest.raises(MachineError, match="do not fit"):
        TableBuilder(machine.memory, MachineKind.I386, 1).build((1 << 30) // PAGE + 1, 0xC000_0000)


def test_gdt_has_the_kernel_s_selectors(rig: Rig) -> None:
    code = 0x10 if rig.kind.bits == 64 else 0x60
    assert rig.cpu.selector("cs") == code
    assert rig.machine.memory.u64(GDT + code + 8) == 0x00CF_9300_0000_FFFF
