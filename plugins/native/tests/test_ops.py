"""Native ops on a real machine, called as the switchboard calls them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_native import backend
from pvops_native.devices.apic import LVT_TIMER
from pvops_native.ops import EMPTY, NOPS, NativeOps
from rig import GATES, GDT, KIND_LAYOUTS, SCRATCH, STACK, TSS, Rig

from pvops_core.kinds import MachineKind
from pvops_core.machine import GuestFault, Reschedule
from pvops_core.ops import LAYOUTS

KERNEL_STACK = 0x55AA_0000
WIDE = "6.1-64"


@pytest.fixture(scope="module", params=KIND_LAYOUTS.values())
def shared(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with Rig(request.param, vcpus=3) as rig:
        rig.machine.gates.map(rig.at(GATES), 1)
        yield rig


@pytest.fixture
def rig(shared: Rig) -> Iterator[Rig]:
    start = shared.machine.snapshot()
    yield shared
    shared.machine.restore(start)


@pytest.fixture
def wide() -> Iterator[Rig]:
    with Rig(WIDE, vcpus=2) as rig:
        yield rig


def to_user(rig: Rig) -> None:
    """Level 3 as the CPU itself holds it."""
    memory = rig.machine.memory
    memory.set_u64(GDT + 0x70, 0x00AF_FB00_0000_FFFF if rig.kind.bits == 64 else 0x00CF_FB00_0000_FFFF)
    memory.set_u64(GDT + 0x78, 0x00CF_F300_0000_FFFF)
    rig.cpu.set_segments(3, 0x70, 0x78)


def test_every_op_is_declared_once() -> None:
    for layout in LAYOUTS.values():
        for slot in (*layout.slots, *layout.boot_hooks):
            ways = [hasattr(NativeOps, slot.op.name), slot.op.name in NOPS, slot.op.name in EMPTY]
            assert sum(ways) == 1, slot.op.name
    assert backend.nops is NOPS


def test_interrupt_flag(rig: Rig) -> None:
    rig.ops.irq_enable(rig.cpu)
    assert rig.ops.save_fl(rig.cpu) & 0x200
    rig.ops.irq_disable(rig.cpu)
    assert not rig.cpu.interrupts_enabled
    rig.ops.restore_fl(rig.cpu, 0x246)
    assert rig.ops.save_fl(rig.cpu) & 0x2FF == 0x246


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


@settings(max_examples=25, derandomize=True, deadline=None)
@given(value=st.integers(0, (1 << 64) - 1))
def test_entries_are_stored_whole(shared: Rig, value: int) -> None:
    size = shared.kind.entry_size
    value &= (1 << size * 8) - 1
    place = shared.at(SCRATCH)
    stores = [shared.ops.set_pte, shared.ops.set_pmd, shared.ops.set_pte_at]
    if shared.kind is MachineKind.PAE:
        stores += [shared.ops.set_pud, shared.ops.set_pte_atomic, shared.ops.set_pte_present]
    if shared.kind is MachineKind.X86_64:
        stores += [shared.ops.set_pud, shared.ops.set_p4d, shared.ops.set_pgd]
    for store in stores:
        shared.cpu.write_virtual(place, b"\xee" * 16)
        store(shared.cpu, place, value)
        assert shared.cpu.read_virtual(place, 16) == value.to_bytes(size, "little") + b"\xee" * (16 - size)
    assert shared.ops.pte_val(shared.cpu, value) == shared.ops.make_pgd(shared.cpu, value) == value


class Recorder:
    """A vCPU's stores, in order, as the other processors could see them."""

    def __init__(self) -> None:
        self.stores: list[tuple[int, int, int]] = []

    def set_u32(self, va: int, value: int) -> None:
        self.stores.append((va, 4, value))

    def set_u64(self, va: int, value: int) -> None:
        self.stores.append((va, 8, value))


def test_pae_stores_keep_their_order() -> None:
    with Rig("2.6.23-pae") as rig:
        value, high, low = 0x1122_3344_5566_7788, 0x1122_3344, 0x5566_7788
        cases = [
            (lambda cpu: rig.ops.set_pte(cpu, 0, value), [(4, 4, high), (0, 4, low)]),
            (lambda cpu: rig.ops.set_pte_present(cpu, 0, value), [(0, 4, 0), (4, 4, high), (0, 4, low)]),
            (lambda cpu: rig.ops.set_pte_atomic(cpu, 0, value), [(0, 8, value)]),
            (lambda cpu: rig.ops.set_pmd(cpu, 0, value), [(0, 8, value)]),
            (lambda cpu: rig.ops.pte_clear(cpu, 0), [(0, 4, 0), (4, 4, 0)]),
            (lambda cpu: rig.ops.pmd_clear(cpu, 0), [(0, 4, 0), (4, 4, 0)]),
        ]
        for act, stores in cases:
            recorder = Recorder()
            act(recorder)
            assert recorder.stores == stores


def test_protection_changes_take_the_entry_out(wide: Rig) -> None:
    place = wide.at(SCRATCH)
    wide.cpu.set_u64(place, 0x8000_0000_0000_1067)
    assert wide.ops.ptep_modify_prot_start(wide.cpu, place) == 0x8000_0000_0000_1067
    assert wide.cpu.u64(place) == 0
    wide.ops.ptep_modify_prot_commit(wide.cpu, place, 0x1065)
    assert wide.cpu.u64(place) == 0x1065


def remap(rig: Rig, frame: int) -> int:
    """Maps the scratch page's address to another frame behind the TLB's back; gives the entry's place."""
    place, value = rig.cpu.walk(rig.at(SCRATCH)).entries[-1]
    new = value & ~0xFFFFF000 | frame
    rig.machine.memory.write(place, new.to_bytes(rig.kind.entry_size, "little"))
    return place


POWER_OFF = "66 ba 04 06 66 b8 00 20 66 ef f4"


@pytest.mark.parametrize("op", ["flush_tlb_user", "flush_tlb_kernel", "flush_tlb_single", "flush_tlb_one_user"])
def test_flushes_reach_the_engine(rig: Rig, op: str) -> None:
    """The guest reads a page, the entry changes, it is flushed, the guest reads again."""
    memory = rig.machine.memory
    memory.set_u32(SCRATCH, 0x1111)
    memory.set_u32(SCRATCH + 0x1000, 0x2222)
    memory.write(GATES, rig.machine.gates.text)
    arguments = (rig.at(SCRATCH),) if op in {"flush_tlb_single", "flush_tlb_one_user"} else ()

    def change(cpu: object) -> None:
        del cpu
        remap(rig, SCRATCH + 0x1000)
        getattr(rig.ops, op)(rig.cpu, *arguments)

    rig.machine.gates.bind(0, change)
    rig.cpu.set("rsi", rig.at(SCRATCH))
    rig.cpu.set("rdi", rig.at(GATES))
    seen = run(rig, "8b 1e ff d7 8b 0e")
    assert seen == (0x1111, 0x2222)


def run(rig: Rig, code: str) -> tuple[int, int]:
    rig.machine.vcpus[1].halt()
    rig.machine.vcpus[2].halt()
    assert rig.run(bytes.fromhex(code + POWER_OFF)) == "poweroff"
    return rig.cpu.get("ebx"), rig.cpu.get("ecx")


def test_global_flush_leaves_cr4_as_it_was(rig: Rig) -> None:
    before = rig.cpu.cr4
    rig.ops.flush_tlb_kernel(rig.cpu)
    assert rig.cpu.cr4 == before


def test_shootdowns_reach_the_cpus_of_the_mask(rig: Rig) -> None:
    mask = rig.at(SCRATCH)
    rig.cpu.set_word(mask, 0b110)
    counts = rig.machine.counts
    before = counts["tlb_flushes"]
    rig.ops.flush_tlb_others(rig.cpu, mask, 0x1000)
    assert counts["tlb_flushes"] - before == 2
    size = rig.kind.pointer_size
    info = rig.at(SCRATCH) + 0x100
    rig.cpu.set_word(info + size, 0x4000)
    rig.cpu.set_word(info + 2 * size, 0x7000)
    rig.cpu.set_u8(info + 3 * size + 12, 12)
    rig.ops.flush_tlb_multi(rig.cpu, mask, info)
    assert counts["tlb_flushes"] - before == 2 + 2 * 3
    rig.cpu.set_word(info + 2 * size, -1)
    rig.ops.flush_tlb_multi(rig.cpu, mask, info)
    assert counts["tlb_flushes"] - before == 2 + 6 + 2


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


def test_io_privilege_level(rig: Rig) -> None:
    rig.ops.set_iopl_mask(rig.cpu, 0x3000)
    assert rig.cpu.rflags & 0x3000 == 0x3000
    rig.ops.set_iopl_mask(rig.cpu, 0x1000)
    assert rig.cpu.rflags & 0x3000 == 0x1000


def test_io_delay_takes_a_microsecond(rig: Rig) -> None:
    before = rig.machine.clock.ns
    rig.ops.io_delay(rig.cpu)
    assert rig.machine.clock.ns - before == 1000


def test_interrupt_return(rig: Rig) -> None:
    rig.cpu.rsp = rig.at(STACK) + 0x800
    words = [rig.at(0x8800), rig.cpu.selector("cs"), 0x202]
    if rig.kind.bits == 64:
        words += [rig.at(STACK) + 0x900, rig.cpu.selector("ss")]
    for word in reversed(words):
        rig.cpu.push(word)
    rig.ops.iret(rig.cpu)
    assert (rig.cpu.rip, rig.cpu.rflags) == (rig.at(0x8800), 0x202)


@pytest.mark.parametrize("layout", ["2.6.23", "2.6.24-pae"])
def test_sysexit(layout: str) -> None:
    with Rig(layout) as rig:
        rig.cpu.set("edx", 0x40_0000)
        rig.cpu.set("ecx", 0x40_1800)
        with pytest.raises(GuestFault):
            rig.ops.irq_enable_sysexit(rig.cpu)
        rig.cpu.insn.wrmsr(0x174, 0x60)
        rig.ops.irq_enable_sysexit(rig.cpu)
        assert (rig.cpu.cpl, rig.cpu.rip, rig.cpu.rsp) == (3, 0x40_0000, 0x40_1800)
        assert rig.cpu.interrupts_enabled


def test_local_apic(rig: Rig) -> None:
    ops, cpus = rig.ops, rig.machine.vcpus
    assert ops.apic_read(cpus[2], 0x20) == 2 << 24
    ops.apic_write(cpus[1], 0xF0, 0x1FF)
    assert ops.apic_read(cpus[1], 0xF0) == 0x1FF
    ops.apic_write_atomic(cpus[0], 0x80, 0x20)
    assert ops.apic_read(cpus[0], 0x80) == 0x20
    ops.setup_boot_clock(cpus[0])
    ops.setup_secondary_clock(cpus[1])
    assert ops.apic_read(cpus[1], LVT_TIMER) == 0x1_00EF


def test_lock_is_taken_in_the_order_of_asking(rig: Rig) -> None:
    lock, ops, cpus = rig.at(SCRATCH), rig.ops, rig.machine.vcpus
    rig.cpu.set_u32(lock, 1)
    for cpu in (cpus[2], cpus[1], cpus[2]):
        with pytest.raises(Reschedule):
            ops.queued_spin_lock_slowpath(cpu, lock)
    assert rig.cpu.u32(lock) == (2 << 18 | 0x101)
    ops.queued_spin_unlock(cpus[0], lock)
    with pytest.raises(Reschedule):
        ops.queued_spin_lock_slowpath(cpus[1], lock)
    ops.queued_spin_lock_slowpath(cpus[2], lock)
    assert rig.cpu.u32(lock) == 0x101
    ops.queued_spin_unlock(cpus[2], lock)
    ops.queued_spin_lock_slowpath(cpus[1], lock)
    assert rig.cpu.u32(lock) == 1
    assert not ops.waiting
    assert ops.vcpu_is_preempted(rig.cpu) == 0


def test_waiting_for_a_lock_that_is_never_given_back_ends_with_the_time(wide: Rig) -> None:
    wide.machine.gates.map(wide.at(GATES), 1)
    wide.machine.memory.write(GATES, wide.machine.gates.text)
    wide.machine.gates.bind(0, lambda cpu: wide.ops.queued_spin_lock_slowpath(cpu, wide.at(SCRATCH)))
    wide.machine.memory.set_u32(SCRATCH, 1)
    wide.machine.vcpus[1].halt()
    wide.cpu.set("rdi", wide.at(GATES))
    assert wide.run(bytes.fromhex("ff d7 f4")) == "timeout"


def test_batch_of_freed_tables(wide: Rig) -> None:
    gather = wide.at(SCRATCH)
    for page in (0x1000, 0x2000):
        wide.ops.tlb_remove_table(wide.cpu, gather, page)
    assert [wide.cpu.u64(gather + 8 * n) for n in (1, 2, 3)] == [2, 0x1000, 0x2000]
    assert wide.ops.pgd_alloc(wide.cpu) == 0


def test_early_pae_tables() -> None:
    with Rig("2.6.24-pae") as rig:
        rig.symbols["empty_zero_page"] = rig.at(SCRATCH + 0x1000)
        base = rig.at(SCRATCH)
        rig.cpu.set_u64(base + 24, 0x7000 | 1)
        rig.ops.pagetable_setup_start(rig.cpu, base)
        zero = SCRATCH + 0x1000 | 1
        assert [rig.cpu.u64(base + 8 * n) for n in range(4)] == [zero, zero, zero, 0]
        rig.cpu.set_u64(base + 24, 0x7000 | 1)
        rig.ops.pagetable_setup_done(rig.cpu, base)
        assert rig.cpu.u64(base) == 0x7000 | 1
        live = rig.cpu.read_virtual(rig.at(rig.root), 32)
        rig.ops.pagetable_setup_start(rig.cpu, rig.at(rig.root))
        assert rig.cpu.read_virtual(rig.at(rig.root), 32) == live


def test_boot(rig: Rig) -> None:
    rig.symbols["e820"] = rig.at(SCRATCH)
    assert rig.ops.memory_setup(rig.cpu) == 0
    assert rig.cpu.u32(rig.at(SCRATCH)) == 1
    assert rig.cpu.u64(rig.at(SCRATCH) + 12) == rig.machine.memory.size
    rig.ops.pagetable_reserve(rig.cpu, 0x1000, 0x3000)
    assert rig.ops.reserved == [(0x1000, 0x3000)]
    del rig.symbols["e820"]


def test_banner_names_what_the_table_names() -> None:
    with Rig("2.6.23") as rig:
        rig.symbols["paravirt_ops"] = rig.at(SCRATCH)
        rig.ops.banner(rig.cpu)
        text = rig.at(SCRATCH) + 0x800
        rig.cpu.write_virtual(text, b"paper\0")
        rig.cpu.set_u32(rig.at(SCRATCH) + 12, text)
        rig.ops.banner(rig.cpu)
        lines = bytes(rig.platform.console).splitlines()
        assert [line.split(b" on ")[1] for line in lines] == [b"bare hardware", b"paper"]
