"""Descriptor tables, the task state and segments."""

from __future__ import annotations

import pytest
from rig import GDT, SCRATCH, TSS, Rig

KERNEL_STACK = 0x55AA_0000


def test_descriptor_table_registers(rig: Rig) -> None:
    ops, cpu, dtr = rig.ops, rig.cpu, rig.at(SCRATCH)
    ops.store_gdt(cpu, dtr)
    assert cpu.word(dtr + 2) == rig.at(GDT)
    cpu.set_u16(dtr, 0x7FF)
    cpu.set_word(dtr + 2, rig.at(0x2000))
    ops.load_idt(cpu, dtr)
    ops.store_idt(cpu, dtr + 16)
    assert cpu.read_virtual(dtr + 16, 2 + rig.kind.pointer_size) == cpu.read_virtual(dtr, 2 + rig.kind.pointer_size)
    cpu.set_u16(dtr, 0xFF)
    cpu.set_word(dtr + 2, rig.at(GDT))
    ops.load_gdt(cpu, dtr)
    assert cpu.insn.sgdt() == (rig.at(GDT), 0xFF)


def put_tss(rig: Rig) -> None:
    base, selector = rig.at(TSS), 0x40 if rig.kind.bits == 64 else 0x80
    low = 0xE7 | (base & 0xFFFFFF) << 16 | 0x89 << 40 | (base >> 24 & 0xFF) << 56
    rig.machine.memory.set_u64(GDT + selector, low)
    rig.machine.memory.set_u64(GDT + selector + 8, base >> 32)


def test_task_state(rig: Rig) -> None:
    put_tss(rig)
    rig.ops.load_tr_desc(rig.cpu)
    assert rig.ops.store_tr(rig.cpu) == (0x40 if rig.kind.bits == 64 else 0x80)
    rig.ops.load_sp0(rig.cpu, KERNEL_STACK)
    assert rig.cpu.word(rig.at(TSS) + 4) == KERNEL_STACK
    rig.ops.invalidate_io_bitmap(rig.cpu)
    assert rig.cpu.u16(rig.at(TSS) + 102) == 0xE8
    rig.cpu.set_u16(rig.at(TSS) + 102, 104)
    rig.ops.update_io_bitmap(rig.cpu)
    assert rig.cpu.u16(rig.at(TSS) + 102) == 0xE8


@pytest.mark.parametrize("layout", ["2.6.23-lapic", "2.6.24-pae"])
def test_kernel_stack_and_sysenter_segment(layout: str) -> None:
    with Rig(layout) as rig:
        thread = rig.at(SCRATCH)
        rig.cpu.set_u32(thread + 24, KERNEL_STACK)
        rig.cpu.set_u32(thread + 28, 0x60)
        rig.ops.load_esp0(rig.cpu, rig.at(TSS), thread)
        assert rig.cpu.u32(rig.at(TSS) + 4) == KERNEL_STACK
        assert rig.cpu.u16(rig.at(TSS) + 16) == 0x60
        assert rig.cpu.msr(0x174) == 0x60


def test_ldt(rig: Rig) -> None:
    rig.cpu.insn.lgdt(rig.at(GDT), 0xFF)
    rig.ops.set_ldt(rig.cpu, rig.at(SCRATCH), 5)
    table = rig.cpu.table("ldtr")
    assert (table.base, table.limit, table.selector) == (rig.at(SCRATCH), 39, 0x50 if rig.kind.bits == 64 else 0x88)
    rig.ops.set_ldt(rig.cpu, 0, 0)
    assert rig.cpu.table("ldtr").selector == 0


def test_thread_local_segments_go_to_the_named_cpu(rig: Rig) -> None:
    other = rig.at(SCRATCH + 0x1000)
    rig.symbols["gdt_pages"] = other - 2 * 0x1000
    tls = bytes(range(24))
    rig.cpu.write_virtual(rig.at(SCRATCH), tls)
    rig.ops.load_tls(rig.cpu, rig.at(SCRATCH), 2)
    first = (12 if rig.kind.bits == 64 else 6) * 8
    assert rig.cpu.read_virtual(other + first, 24) == tls


def test_table_entries_by_value_and_by_pointer(rig: Rig) -> None:
    table, source = rig.at(SCRATCH), rig.at(SCRATCH) + 0x400
    rig.cpu.write_virtual(source, bytes(range(1, 17)))
    rig.ops.write_gdt_entry(rig.cpu, table, 3, 0x11111111, 0x22222222, 0, 0)
    assert rig.cpu.u64(table + 24) == 0x2222222211111111
    rig.ops.write_ldt_entry(rig.cpu, table, 1, 0, 0, source)
    assert rig.cpu.read_virtual(table + 8, 8) == bytes(range(1, 9))
    gate = 16 if rig.kind.bits == 64 else 8
    rig.ops.write_idt_entry(rig.cpu, table, 5, 0, 0, source)
    assert rig.cpu.read_virtual(table + 5 * gate, gate) == bytes(range(1, gate + 1))


def test_wide_descriptors_take_two_places(wide: Rig) -> None:
    table, source = wide.at(SCRATCH), wide.at(SCRATCH) + 0x400
    wide.cpu.write_virtual(source, bytes(range(1, 17)))
    wide.ops.write_gdt_entry(wide.cpu, table, 2, 0, 0, source, 9)
    assert wide.cpu.read_virtual(table + 16, 16) == bytes(range(1, 17))
    wide.ops.write_gdt_entry(wide.cpu, table, 8, 0, 0, source, 0x10)
    assert wide.cpu.read_virtual(table + 64, 16) == bytes(range(1, 9)) + bytes(8)


def test_user_gs(wide: Rig) -> None:
    wide.machine.memory.set_u64(GDT + 0x28, 0x00CF_F300_0000_FFFF)
    wide.cpu.set("gs_base", 0xFFFF_8000_0000_1000)
    wide.ops.load_gs_index(wide.cpu, 0x2B)
    assert wide.cpu.get("gs_base") == 0xFFFF_8000_0000_1000
    assert wide.cpu.selector("gs") == 0x2B
    wide.ops.load_gs_index(wide.cpu, 0x7F8)
    assert wide.cpu.selector("gs") == 0
