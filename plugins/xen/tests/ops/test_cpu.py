"""Registers of the processor: which go by hypercall, which are Xen's."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from pvops_xen.ops.multicalls import Lazy

from pvops_core.machine import GuestFault

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.ops_rig import TARGET, ops_of


def test_a_context_switch_has_no_thread_s_segment_loaded_while_descriptors_wait(bench: Bench) -> None:
    ops, cpu, name = ops_of(bench), bench.cpu, "fs" if bench.word == 8 else "gs"
    ops.guest = Mock(member=lambda *_: 0)
    ops.kept.gdt[0] = thread = bench.write(TARGET, bytes(64))
    for entry in range(3):
        ops.kept.tls[0, entry] = 0
    cpu.load_segment(name, cpu.get("ss"))
    before = cpu.get(name)
    ops.load_tls(cpu, thread, 0)
    assert cpu.get(name) == before != 0, "no switch"
    ops.mc(cpu).enter(Lazy.CPU)
    ops.load_tls(cpu, thread, 0)
    assert cpu.get(name) == 0


def test_msrs(bench64: Bench) -> None:
    ops, cpu = ops_of(bench64), bench64.cpu
    assert ops.write_msr(cpu, 0xC0000100, 0x5000, 0) == 0
    assert bench64.platform.hv.domain.vcpus[0].fs_base == 0x5000
    assert ops.write_msr_safe(cpu, 0xC0000082, 1, 0) == 0
    assert ops.write_msr_safe(cpu, 0x12345, 1, 0) == -5
    err = bench64.va(0x110)
    assert ops.read_msr_safe(cpu, 0x12345, err, 0) == 0
    assert cpu.u32(err) == 0xFFFFFFFB
    with pytest.raises(GuestFault):
        ops.read_msr(cpu, 0x12345, 0)


UNKNOWN, EFER, APIC_BASE, PAT = 0x12345, 0xC0000080, 0x1B, 0x277


def test_a_register_that_is_not_there_is_an_error_or_a_fault_by_the_kernels_age(bench: Bench) -> None:
    ops, cpu, err = ops_of(bench), bench.cpu, bench.va(0x110)
    cpu.set_u32(err, 7)
    assert ops.read_msr_safe(cpu, UNKNOWN, err, 0) == 0
    assert cpu.u32(err) == (1 << 32) - 5
    assert ops.write_msr_safe(cpu, UNKNOWN, 1, 0) == -5
    if bench.word == 8:
        for touch in (lambda: ops.read_msr(cpu, UNKNOWN, 0), lambda: ops.write_msr(cpu, UNKNOWN, 1, 0)):
            with pytest.raises(GuestFault) as caught:
                touch()
            assert caught.value.vector == 13
    else:
        assert ops.read_msr(cpu, UNKNOWN, err) == 0
        assert cpu.u32(err) == (1 << 32) - 14
        assert ops.write_msr(cpu, UNKNOWN, 1, 0) == -14


def test_a_register_that_is_there_tells_of_no_error(bench: Bench) -> None:
    ops, cpu, err = ops_of(bench), bench.cpu, bench.va(0x110)
    for read in (lambda: ops.read_msr(cpu, PAT, err), lambda: ops.read_msr_safe(cpu, PAT, err, 0)):
        cpu.set_u32(err, 7)
        assert read() == 0x50100070406
        assert cpu.u32(err) == 0
    if bench.word == 8:
        assert ops.read_msr_safe(cpu, PAT, 0, err) == 0
        assert cpu.u64(err) == 0x50100070406
        assert ops.read_msr_safe(cpu, UNKNOWN, 0, err) == -5
    assert ops.read_msr(cpu, APIC_BASE, 0) & 0xFFFFF000 == 0xFEE00000
    assert not ops.read_msr(cpu, APIC_BASE, 0) & 1 << 10, "the kernel must not see an x2APIC"
    # What Xen keeps for itself is dropped without a word (xen_do_write_msr).
    before = ops.read_msr(cpu, EFER, 0)
    for msr in (0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0x174, 0x175, 0x176):
        assert ops.write_msr(cpu, msr, 1, 0) == ops.write_msr_safe(cpu, msr, 1, 0) == 0
    assert ops.read_msr(cpu, EFER, 0) == before


@pytest.mark.parametrize(
    ("msr", "field"), [(0xC0000100, "fs_base"), (0xC0000101, "gs_base_kernel"), (0xC0000102, "gs_base_user")]
)
def test_segment_bases_are_set_whole(bench64: Bench, msr: int, field: str) -> None:
    ops, cpu, vcpu = ops_of(bench64), bench64.cpu, bench64.platform.hv.domain.vcpus[0]
    before = bench64.platform.hypercalls["set_segment_base"]
    assert ops.write_msr(cpu, msr, 0x12345000, 0x7ABC) == 0
    assert bench64.platform.hypercalls["set_segment_base"] == before + 1
    if field == "fs_base":
        assert vcpu.fs_base == 0x7ABC12345000
    assert ops.write_msr(cpu, msr, 0, 1 << 31) == -14, "not canonical"
    assert ops.write_msr_safe(cpu, msr, 0, 1 << 31) == -5


def test_cpuid_hides_what_a_pv_kernel_must_not_use(bench: Bench) -> None:
    ops, cpu = ops_of(bench), bench.cpu
    places = [bench.va(0x110) + 4 * number for number in range(4)]

    def ask(leaf: int) -> list[int]:
        for place, value in zip(places, (leaf, 0, 0, 0), strict=True):
            cpu.set_u32(place, value)
        ops.cpuid(cpu, *places)
        return [cpu.u32(place) for place in places]

    eax, ebx, ecx, edx = bench.platform.cpuid(cpu, 1, 0)
    hidden = 0x405280 if bench.word == 8 else 0x405A80  # MCE APIC MTRR MCA ACPI; 32-bit: SEP
    assert ask(1) == [eax, ebx, ecx & ~0x4220008, edx & ~hidden]  # MWAIT PCID X2APIC XSAVE
    for leaf in (0, 2, 0x40000000, 0x80000001):
        assert ask(leaf) == list(bench.platform.cpuid(cpu, leaf, 0)), "other leaves are Xen's own answer"


def test_control_register_4_keeps_what_is_xens(bench: Bench) -> None:
    ops, cpu = ops_of(bench), bench.cpu
    before = cpu.insn.mov_from_cr(4)
    ops.write_cr4(cpu, before ^ (1 << 4 | 1 << 7 | 1 << 8))
    assert cpu.insn.mov_from_cr(4) == before & ~(1 << 4 | 1 << 7 | 1 << 8)


def test_debug_registers_go_by_hypercall_and_a_refusal_is_zero(bench: Bench) -> None:
    ops, cpu = ops_of(bench), bench.cpu
    ops.set_debugreg(cpu, 2, 0x4000)
    assert ops.get_debugreg(cpu, 2) == 0x4000
    ops.set_debugreg(cpu, 9, 1)
    assert ops.get_debugreg(cpu, 9) == 0
