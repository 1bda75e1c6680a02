"""Model-specific registers: how a fault is told, by the kernel's age."""

from __future__ import annotations

from rig import SCRATCH, Rig


def test_model_specific_registers_of_2007() -> None:
    with Rig("2.6.23") as rig:
        error = rig.at(SCRATCH)
        assert rig.ops.write_msr(rig.cpu, 0x174, 0x60, 0) == 0
        assert rig.ops.read_msr(rig.cpu, 0x174, error) == 0x60
        assert rig.cpu.u32(error) == 0
        assert rig.ops.read_msr(rig.cpu, 0x12345, error) == 0
        assert rig.cpu.u32(error) == 0xFFFF_FFF2
        assert rig.ops.write_msr(rig.cpu, 0x12345, 0, 0) == -14


def test_model_specific_registers_of_6_1(wide: Rig) -> None:
    error = wide.at(SCRATCH)
    wide.ops.write_msr(wide.cpu, 0xC000_0102, 0x1000, 0xFFFF_8000)
    assert wide.ops.read_msr(wide.cpu, 0xC000_0102, 0) == 0xFFFF_8000_0000_1000
    assert wide.ops.read_msr_safe(wide.cpu, 0x12345, error, 0) == 0
    assert wide.cpu.u32(error) == 0xFFFF_FFFB
    assert wide.ops.write_msr_safe(wide.cpu, 0x12345, 0, 0) == -5
    assert wide.ops.read_msr_safe(wide.cpu, 0xC000_0102, 0, error) == 0
    assert wide.cpu.u64(error) == 0xFFFF_8000_0000_1000
    assert wide.ops.read_msr_safe(wide.cpu, 0x12345, 0, error) == -5
    assert wide.cpu.u64(error) == 0
    before = len(wide.machine.log.events)
    assert wide.ops.read_msr(wide.cpu, 0x12345, 0) == 0
    wide.ops.write_msr(wide.cpu, 0x12345, 0, 0)
    assert len(wide.machine.log.events) == before + 2
