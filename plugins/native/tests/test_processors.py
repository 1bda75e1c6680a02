"""Processors of bare metal: started by messages, in real mode, and told of text that another rewrote."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from pvops_native.devices import apic as lapic
from pvops_native.linux import loader
from pvops_native.platform import NativePlatform

from pvops_core.errors import MachineError
from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.kinds import MachineKind
from pvops_core.machine import Machine
from pvops_core.testing.images import ElfBuilder

MEMORY = 32 << 20
BASE = 0x1000000
LOCAL = "b8 0000e0fe"  # mov eax, 0xfee00000: rax holds the local APIC's address
ENABLE = "c780 f0000000 ff010000"  # mov dword [rax + 0xf0], 0x1ff
SPIN = "ebfe"
Boot = Callable[..., NativePlatform]


@pytest.fixture
def boot() -> Iterator[Boot]:
    with ExitStack() as stack:

        def make(code: str, *, bits: int = 64, vcpus: int = 2, memory: int = MEMORY) -> NativePlatform:
            builder = ElfBuilder(bits, BASE)
            builder.text(".text", bytes.fromhex(code))
            kind = MachineKind.X86_64 if bits == 64 else MachineKind.PAE
            machine = stack.enter_context(Machine(kind, memory=memory, vcpus=vcpus, slice_blocks=2000))
            platform = NativePlatform(machine, Kernel(load_image(builder.build())))
            machine.attach(platform)
            platform.build()
            return platform

        yield make


def store(register: int, value: int) -> str:
    """mov dword [eax or rax + register], value."""
    return f"c780 {register.to_bytes(4, 'little').hex()} {value.to_bytes(4, 'little').hex()}"


def start(number: int, page: int) -> str:
    """INIT and start-up of a processor."""
    high = store(lapic.ICR_HIGH, number << 24)
    return high + store(lapic.ICR_LOW, 0x4500) + store(lapic.ICR_LOW, lapic.STARTUP << 8 | page)


# In real mode: puts CS where it can be seen, then goes to flat 32-bit protected mode by itself and marks that too.
TRAMPOLINE = bytes.fromhex("8cc8 8ed8 a3 0002 0f01168000 0f20c0 0c01 0f22c0 66ea 40900000 0800")
PROTECTED = bytes.fromhex("66b81000 8ed8 c705 10920000 78563412 ebfe")


@pytest.mark.parametrize("bits", [64, 32])
def test_a_processor_starts_in_real_mode_and_finds_its_way(boot: Boot, bits: int) -> None:
    platform = boot(LOCAL + start(1, 0x09) + SPIN, bits=bits)
    memory = platform.machine.memory
    memory.write(0x9000, TRAMPOLINE)
    memory.write(0x9040, PROTECTED)
    memory.write(0x9080, (0x1F).to_bytes(2, "little") + (0x90C0).to_bytes(4, "little"))
    for number, descriptor in enumerate((0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)):
        memory.set_u64(0x90C0 + 8 * number, descriptor)
    platform.machine.run(max_ns=200_000)
    assert memory.u16(0x9200) == 0x0900
    assert memory.u32(0x9210) == 0x12345678
    assert platform.machine.vcpus[1].cr0 & 1


def test_a_start_up_without_an_init_is_ignored(boot: Boot) -> None:
    again = store(lapic.ICR_LOW, lapic.STARTUP << 8 | 0x0A)
    platform = boot(LOCAL + start(1, 0x09) + again + SPIN)
    memory = platform.machine.memory
    memory.write(0x9000, bytes.fromhex(SPIN))
    memory.write(0xA000, bytes.fromhex(SPIN))
    platform.machine.run(max_ns=200_000)
    cpu = platform.machine.vcpus[1]
    assert cpu.segment("cs")[:2] == (0x0900, 0x9000)
    assert not cpu.halted


def test_a_processor_that_was_not_started_sleeps_whatever_it_is_sent(boot: Boot) -> None:
    send = store(lapic.ICR_HIGH, 1 << 24) + store(lapic.ICR_LOW, 0x55)
    platform = boot(LOCAL + ENABLE + send + SPIN)
    platform.machine.run(max_ns=200_000)
    assert platform.machine.vcpus[1].halted


def test_each_sees_its_own_local_apic_and_cpuid_number(boot: Boot) -> None:
    platform = boot(SPIN)
    for vcpu in platform.machine.vcpus:
        assert vcpu.insn.cpuid(1)[1] >> 24 == vcpu.index
        assert vcpu.insn.cpuid(1)[3] & 1 << 9
        assert platform.board.apics[vcpu.index].read(lapic.ID) >> 24 == vcpu.index


# vCPU 0 starts vCPU 1, which calls a function for ever; rewrites that function's result, sends an interrupt that is
# never taken, and spins. vCPU 1 must come to give the new result.
FUNCTION = 0x1000100
CALLER = bytes.fromhex(f"e8 {(FUNCTION - 0x1000205).to_bytes(4, 'little', signed=True).hex()} 890425 00910000 ebf2")


@pytest.mark.parametrize("told", [True, False])
def test_text_that_another_rewrote_counts_from_the_next_message_on(boot: Boot, *, told: bool) -> None:
    wait = "b9 00000100 ffc9 75fc"  # long enough for the other to have run the function
    rewrite = f"c60425 {(FUNCTION + 1).to_bytes(4, 'little').hex()} 22"
    message = store(lapic.ICR_HIGH, 1 << 24) + store(lapic.ICR_LOW, 0x55) if told else ""
    code = bytes.fromhex(LOCAL + ENABLE + wait + rewrite + message + SPIN)
    function = bytes.fromhex("b8 11000000 c3")  # mov eax, 0x11; ret
    text = code.ljust(0x100, b"\xcc") + function.ljust(0x100, b"\xcc") + CALLER
    platform = boot(text.hex())
    first, second = platform.machine.vcpus
    second.load_registers(first.save_registers())  # the same mode and tables, without going through a trampoline
    second.rip, second.rsp = BASE + 0x200, 0x8000
    second.halted = False
    platform.machine.run(max_ns=20_000_000)
    assert platform.machine.memory.u32(0x9100) == (0x22 if told else 0x11)


@pytest.mark.parametrize("stack", [0, 1], ids=["own-stack", "ist"])
def test_an_nmi_that_another_sends_is_taken_with_interrupts_off(boot: Boot, stack: int) -> None:
    platform = boot(LOCAL + store(lapic.ICR_HIGH, 1 << 24) + store(lapic.ICR_LOW, lapic.NMI << 8) + SPIN)
    machine = platform.machine
    first, second = machine.vcpus
    second.load_registers(first.save_registers())
    handler, table, task = 0x7100, 0x7800, 0x7000
    gate = struct.pack("<HHBBHII", handler, loader.CODE, stack, 0x8E, 0, 0, 0)
    machine.memory.write(table + 16 * 2, gate)
    machine.memory.write(handler, bytes.fromhex("48892425 00910000 ebfe"))  # mov [0x9100], rsp; jmp .
    machine.memory.set_u64(task + 0x24, 0x6000)
    second.set_table("idtr", table, 0xFFF)
    second.set_table("tr", task, 0x67, 0x40, 0x8B00)
    machine.memory.write(0x9000, bytes.fromhex(SPIN))
    second.rip, second.rsp, second.halted = 0x9000, 0x8000, False
    machine.run(max_ns=100_000)
    assert machine.memory.u64(0x9100) == (0x6000 if stack else 0x8000) - 5 * 8
    assert second.rip == handler + 8


def test_too_much_memory_is_refused(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pvops_native.apics.IO", 16 << 20)
    with pytest.raises(MachineError, match="at most 16 MiB of memory: above are the APICs"):
        boot(SPIN)


def test_snapshots_know_who_waits_for_a_start(boot: Boot) -> None:
    platform = boot(LOCAL + start(1, 0x09) + SPIN)
    machine = platform.machine
    machine.memory.write(0x9000, bytes.fromhex(SPIN))
    before = machine.snapshot()
    for _ in range(2):
        machine.run(max_ns=100_000)
        assert machine.vcpus[1].segment("cs")[0] == 0x0900
        machine.restore(before)
        assert machine.vcpus[1].halted
