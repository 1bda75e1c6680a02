"""Control and debug registers, cpuid, ports and privilege."""

from __future__ import annotations

import pytest
from rig import GDT, SCRATCH, Rig

from pvops_core.machine import GuestFault


def to_user(rig: Rig) -> None:
    """Level 3 as the CPU itself holds it."""
    memory = rig.machine.memory
    memory.set_u64(GDT + 0x70, 0x00AF_FB00_0000_FFFF if rig.kind.bits == 64 else 0x00CF_FB00_0000_FFFF)
    memory.set_u64(GDT + 0x78, 0x00CF_F300_0000_FFFF)
    rig.cpu.set_segments(3, 0x70, 0x78)


def test_privileged_ops_trap_outside_level_0(rig: Rig) -> None:
    to_user(rig)
    ops, cpu = rig.ops, rig.cpu
    calls = [
        lambda: ops.irq_disable(cpu),
        lambda: ops.write_cr3(cpu, 0),
        lambda: ops.read_cr0(cpu),
        lambda: ops.flush_tlb_user(cpu),
        lambda: ops.flush_tlb_single(cpu, 0),
        lambda: ops.wbinvd(cpu),
        lambda: ops.halt(cpu),
        lambda: ops.load_tr_desc(cpu),
        lambda: ops.io_delay(cpu),
        lambda: ops.get_debugreg(cpu, 7),
    ]
    for call in calls:
        with pytest.raises(GuestFault) as caught:
            call()
        assert caught.value.vector == 13
    with pytest.raises(GuestFault) as caught:
        ops.set_pte(cpu, rig.at(SCRATCH), 1)
    assert (caught.value.vector, caught.value.error_code) == (14, 7)


def test_control_and_debug_registers(rig: Rig) -> None:
    ops, cpu = rig.ops, rig.cpu
    ops.write_cr0(cpu, ops.read_cr0(cpu) | 8)
    assert cpu.cr0 & 8
    ops.clts(cpu)
    assert not cpu.cr0 & 8
    ops.write_cr2(cpu, 0x1234)
    assert ops.read_cr2(cpu) == 0x1234
    ops.set_debugreg(cpu, 0, 0x5678)
    assert ops.get_debugreg(cpu, 0) == 0x5678
    ops.write_cr4(cpu, ops.read_cr4_safe(cpu) | 4)
    assert ops.read_cr4(cpu) & 4
    ops.write_cr3(cpu, ops.read_cr3(cpu))
    assert ops.read_cr3(cpu) == rig.root


def test_cpuid_goes_through_pointers(rig: Rig) -> None:
    words = [rig.at(SCRATCH) + 4 * n for n in range(4)]
    rig.cpu.set_u32(words[0], 0)
    rig.cpu.set_u32(words[2], 0)
    rig.ops.cpuid(rig.cpu, *words)
    vendor = b"".join(rig.cpu.read_virtual(words[n], 4) for n in (1, 3, 2))
    assert vendor == b"GenuineIntel"


def test_io_privilege_level(rig: Rig) -> None:
    rig.ops.set_iopl_mask(rig.cpu, 0x3000)
    assert rig.cpu.rflags & 0x3000 == 0x3000
    rig.ops.set_iopl_mask(rig.cpu, 0x1000)
    assert rig.cpu.rflags & 0x3000 == 0x1000


def test_io_delay_takes_a_microsecond(rig: Rig) -> None:
    before = rig.machine.clock.ns
    rig.ops.io_delay(rig.cpu)
    assert rig.machine.clock.ns - before == 1000
