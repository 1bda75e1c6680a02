"""Ops one by one, on a domain without a guest: translation, batches, page tables, the shared interrupt mask."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pvops_xen import XenOps
from pvops_xen.hypervisor.abi import VmAssist
from pvops_xen.hypervisor.memory.frames import FrameType
from pvops_xen.ops.multicalls import MC_BATCH, Lazy

from pvops_core.backends import Environment, HypercallMade
from pvops_core.machine import GuestFault, PageFault
from pvops_core.ops import LAYOUTS

if TYPE_CHECKING:
    from conftest import Bench

TABLE, TARGET, MM, ROOT, USER_ROOT = 0x300, 0x310, 0x320, 0x330, 0x331


def ops_of(bench: Bench, switches: list[str] | None = None) -> XenOps:
    symbols = {"kernel_base": bench.base, "mm_pgd_offset": 0, "mm_user_pgd_offset": bench.word, "init_mm": bench.va(MM)}
    symbols |= {"pgt_buf_start": bench.va(0x111), "pgt_buf_top": bench.va(0x111) + 8}
    seen = switches if switches is not None else []
    environment = Environment(
        machine=bench.machine,
        layout=LAYOUTS["6.1-64" if bench.word == 8 else "2.6.24-pae"],
        platform=bench.platform,
        symbols=symbols,
        switch=lambda op, implementation, by: seen.append(f"{op}:{implementation.__name__}:{by}"),
    )
    return XenOps(environment)


def table_in_use(bench: Bench) -> int:
    bench.write(TABLE, bytes(4096))
    assert bench.set_mapping(TABLE, writable=False) == 0
    assert bench.mmuext(0, bench.mfn(TABLE)) == 0
    return bench.va(TABLE)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pfn=st.integers(0, 2000), flags=st.integers(0, 0xFFF))
def test_translation_goes_there_and_back(bench64: Bench, pfn: int, flags: int) -> None:
    ops, value = ops_of(bench64), pfn << 12 | flags
    stored = ops.make_pte(bench64.cpu, value)
    if not flags & 1:
        assert stored == value
    elif pfn < bench64.platform.hv.domain.nr_pages:
        assert stored >> 12 == bench64.mfn(pfn)
        assert ops.pte_val(bench64.cpu, stored) == value
    else:
        assert stored == 0


def test_a_foreign_frame_is_not_present(bench: Bench) -> None:
    ops = ops_of(bench)
    assert ops.pte_val(bench.cpu, bench.platform.hv.m2p | 0x63) == 0x62
    assert ops.pte_val(bench.cpu, 0x7FFFFFF << 12 | 0x63) == 0x62


def test_lazy_updates_wait_and_full_batches_do_not(bench: Bench) -> None:
    va, ops = table_in_use(bench), ops_of(bench)
    ops.kept.late = True
    ops.mmu_lazy_mode_enter(bench.cpu)
    before = bench.platform.hypercalls["mmu_update"]
    for slot in range(MC_BATCH):
        ops.set_pte(bench.cpu, va + 8 * slot, ops.make_pte(bench.cpu, TARGET << 12 | 0x61))
    assert bench.platform.hypercalls["mmu_update"] == before
    assert bench.cpu.u64(va) == 0
    ops.set_pte(bench.cpu, va + 8 * MC_BATCH, 0)  # 512 bytes of arguments are used up: the rest goes first or after
    ops.mmu_lazy_mode_leave(bench.cpu)
    assert bench.cpu.u64(va) >> 12 & 0xFFFFFFF == bench.mfn(TARGET)
    assert bench.platform.hypercalls["mmu_update"] - before == 2
    ops.set_pte(bench.cpu, va, 0)
    assert bench.cpu.u64(va) == 0


def test_a_refused_call_of_a_batch_is_reported(bench: Bench) -> None:
    va, ops = table_in_use(bench), ops_of(bench)
    ops.kept.late = True
    ops.mmu_lazy_mode_enter(bench.cpu)
    ops.set_pte(bench.cpu, va, bench.mfn(TABLE) << 12 | 0x63)
    ops.flush_tlb_kernel(bench.cpu)
    assert ops.calls[0].flush() == 1
    assert ops.calls[0].failed == 1
    assert any(event.kind == "xen_mc_flush" for event in bench.machine.log.events)


def test_a_context_switch_interrupts_an_mmu_batch(bench: Bench) -> None:
    ops = ops_of(bench)
    batch = ops.calls[0]
    ops.mmu_lazy_mode_enter(bench.cpu)
    ops.start_context_switch(bench.cpu, 0)
    assert batch.mode == Lazy.CPU
    ops.load_sp0(bench.cpu, 0x1234)
    assert bench.platform.hv.domain.vcpus[0].kernel_sp == 0
    ops.end_context_switch(bench.cpu, 0)
    assert bench.platform.hv.domain.vcpus[0].kernel_sp == 0x1234
    assert batch.mode == Lazy.MMU


def test_early_entries_keep_tables_read_only(bench: Bench) -> None:
    ops = ops_of(bench)
    bench.write(0x111, struct.pack("<QQ", TARGET, TARGET + 1))
    ops.kept.protected.add(TARGET + 1)
    place = bench.write(0x112, bytes(32))
    for slot, pfn in enumerate((TARGET, TARGET + 1, TARGET + 2)):
        ops.set_pte(bench.cpu, place + 8 * slot, ops.make_pte(bench.cpu, pfn << 12 | 0x63))
    assert [bench.cpu.u64(place + 8 * slot) >> 1 & 1 for slot in range(3)] == [0, 0, 1]


def test_pagetable_reserve_gives_the_rest_back(bench: Bench) -> None:
    ops = ops_of(bench)
    bench.write(0x111, struct.pack("<QQ", TARGET, TARGET + 4))
    for pfn in range(TARGET, TARGET + 4):
        ops.tables.protect(bench.cpu, pfn, writable=False)
    ops.pagetable_reserve(bench.cpu, TARGET << 12, (TARGET + 2) << 12)
    writable = []
    for pfn in range(TARGET, TARGET + 4):
        try:
            bench.cpu.walk(bench.va(pfn), write=True)
        except PageFault:
            writable.append(False)
        else:
            writable.append(True)
    assert writable == [False, False, True, True]


def test_a_refused_pin_is_a_bug(bench: Bench) -> None:
    ops = ops_of(bench)
    bench.write(TABLE, (bench.platform.hv.m2p | 0x63).to_bytes(8, "little"))
    with pytest.raises(GuestFault) as caught:
        ops.alloc_pte(bench.cpu, bench.va(MM), TABLE)
    assert caught.value.vector == 6


def test_a_space_is_pinned_and_given_back(bench64: Bench) -> None:
    bench, ops = bench64, ops_of(bench64)
    ops.kept.late = True
    mm = bench.write(MM, bench.words(bench.va(ROOT), bench.va(USER_ROOT)))
    for pfn in (ROOT, USER_ROOT, 0x332, 0x333, 0x334):
        bench.write(pfn, bytes(4096))
    kernel = bench.platform.hv.memory.u64((bench.mfn(0x200) << 12) + 511 * 8)
    bench.write(ROOT, kernel.to_bytes(8, "little"), 511 * 8)
    ops.pgd_alloc(bench.cpu, mm)
    table = 0x67
    ops.set_pte(bench.cpu, bench.va(0x334), ops.make_pte(bench.cpu, TARGET << 12 | table))
    ops.set_pmd(bench.cpu, bench.va(0x333), ops.make_pmd(bench.cpu, 0x334 << 12 | table))
    ops.set_pud(bench.cpu, bench.va(0x332), ops.make_pud(bench.cpu, 0x333 << 12 | table))
    ops.set_p4d(bench.cpu, bench.va(ROOT), ops.make_p4d(bench.cpu, 0x332 << 12 | table))
    assert bench.cpu.u64(bench.va(USER_ROOT)) == bench.cpu.u64(bench.va(ROOT))
    ops.activate_mm(bench.cpu, mm)
    frames = bench.platform.hv.frames
    kinds = [frames.in_use_as(bench.mfn(pfn)) for pfn in (ROOT, USER_ROOT, 0x332, 0x333, 0x334)]
    assert kinds == [FrameType.L4, FrameType.L4, FrameType.L3, FrameType.L2, FrameType.L1]
    ops.xen_write_cr3(bench.cpu, ROOT << 12)
    state = bench.platform.hv.domain.vcpus[0]
    assert (state.guest_table, state.guest_table_user) == (bench.mfn(ROOT), bench.mfn(USER_ROOT))
    ops.kept.user_roots.pop(0x200, None)
    ops.xen_write_cr3(bench.cpu, 0x200 << 12)
    assert state.guest_table_user == 0
    ops.exit_mmap(bench.cpu, mm)
    assert all(frames.types[bench.mfn(pfn)] == 1 for pfn in (0x332, 0x333, 0x334))  # mapped writable again
    assert not {ROOT, USER_ROOT, 0x332, 0x333, 0x334} & ops.kept.pinned


def test_an_entry_of_both_roots_is_written_by_one_hypercall(bench64: Bench) -> None:
    bench, ops, made = bench64, ops_of(bench64), list[HypercallMade]()
    ops.kept.late = True
    mm = bench.write(MM, bench.words(bench.va(ROOT), bench.va(USER_ROOT)))
    for pfn in (ROOT, USER_ROOT):
        bench.write(pfn, bytes(4096))
    ops.pgd_alloc(bench.cpu, mm)
    ops.activate_mm(bench.cpu, mm)
    bench.platform.observe(made.append)
    ops.set_p4d(bench.cpu, bench.va(ROOT) + 8, 0)
    (call,) = made
    assert call.name == "mmu_update"
    assert call.operations == tuple((bench.mfn(pfn) << 12 | 8, 0) for pfn in (ROOT, USER_ROOT))


def test_a_kernel_without_events_has_them_masked_and_stays_as_it_is(bench64: Bench) -> None:
    bench, ops = bench64, ops_of(bench64)
    dummy = bench.mfn(TARGET) << 12
    bench.write(TARGET, bytes(4096))
    ops.linux = Mock(no_events=dummy, vcpu_info=lambda _cpu: dummy)
    assert ops.save_fl(bench.cpu) == 0
    ops.irq_disable(bench.cpu)
    assert bench.platform.hv.memory.read(dummy, 4096) == bytes(4096)
    ops.linux = Mock(no_events=dummy + 4096, vcpu_info=lambda _cpu: dummy)
    assert ops.save_fl(bench.cpu) == 0x200
    ops.irq_disable(bench.cpu)
    assert ops.save_fl(bench.cpu) == 0
    assert bench.platform.hv.memory.u8(dummy + 1) == 1


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


def test_early_write_cr3_makes_way_for_the_late_one(bench64: Bench) -> None:
    switches: list[str] = []
    ops = ops_of(bench64, switches)
    ops.write_cr3(bench64.cpu, 0x200 << 12)
    assert switches == ["write_cr3:xen_write_cr3:xen_write_cr3_init"]
    with pytest.raises(PageFault) as caught:
        ops.xen_write_cr3(bench64.cpu, 0x200 << 12)
    assert caught.value.address == 0xFFFFEA0000000000 + 0x200 * 64 + 0x28


def test_the_interrupt_mask(bench: Bench) -> None:
    ops, cpu = ops_of(bench), bench.cpu
    info = bench.platform.hv.domain.vcpus[0].info
    assert ops.save_fl(cpu) == 0
    ops.irq_enable(cpu)
    assert (ops.save_fl(cpu), bench.platform.hv.memory.u8(info + 1)) == (0x200, 0)
    ops.irq_disable(cpu)
    assert ops.save_fl(cpu) == 0
    ops.restore_fl(cpu, 0x200)
    assert ops.save_fl(cpu) == 0x200


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


@pytest.mark.parametrize("use", ["activate_mm", "enter_mmap"])
def test_a_root_without_a_user_root_is_pinned_alone(bench64: Bench, use: str) -> None:
    ops = ops_of(bench64)
    ops.kept.late = True
    mm = bench64.write(MM, bench64.words(bench64.va(ROOT), 0))
    bench64.write(ROOT, bytes(4096))
    getattr(ops, use)(bench64.cpu, mm)
    assert ops.kept.pinned == {ROOT}
    assert bench64.platform.hv.frames.in_use_as(bench64.mfn(ROOT)) == FrameType.L4
    ops.exit_mmap(bench64.cpu, mm)
    assert not ops.kept.pinned
    assert bench64.platform.hv.frames.in_use_as(bench64.mfn(ROOT)) != FrameType.L4


@pytest.mark.parametrize(("shift", "multiplier", "khz"), [(0, 0x80000000, 2_000_000), (2, 0x80000000, 500_000)])
def test_the_processors_speed_is_read_from_the_time_record(bench: Bench, shift: int, multiplier: int, khz: int) -> None:
    ops, cpu = ops_of(bench), bench.cpu
    record = ops.info(cpu) + 32
    memory = bench.machine.memory
    memory.set_u32(record + 24, multiplier)
    memory.set_u8(record + 28, shift)
    assert ops.get_cpu_khz(cpu) == khz
    memory.set_u8(record + 28, 256 - 1 - shift)  # a negative shift
    assert ops.get_cpu_khz(cpu) == 2_000_000 << shift + 1


def test_a_mask_of_processors_is_read_no_further_than_it_is_long(bench: Bench) -> None:
    """The mask is the last word before a page that is not mapped."""
    ops = ops_of(bench)
    last = bench.va(0x110) + 4096 - bench.word
    bench.write(0x110, bench.words(1), 4096 - bench.word)
    address = bench.va(0x111)
    assert bench.call(14, address, 0, 0, *((0,) if bench.word == 4 else ())) == 0
    with pytest.raises(PageFault):
        bench.cpu.u32(address)
    before = bench.platform.hypercalls.total()
    ops.flush_tlb_others(bench.cpu, last, 0x1000)  # nobody else is there
    assert bench.platform.hypercalls.total() == before


def test_setup_asks_for_help_and_says_where_to_enter_the_kernel(bench: Bench) -> None:
    ops, cpu, hv = ops_of(bench), bench.cpu, bench.platform.hv
    ops.env.symbols.update({"xen_hypervisor_callback": bench.va(0x101), "xen_failsafe_callback": bench.va(0x102)})
    cpu.rsp = bench.va(0x110) + 4096
    ops.arch_setup(cpu)
    assert hv.state(cpu).iopl == 1, "the kernel may use ports"
    assert hv.domain.assisted(VmAssist.WRITABLE_PAGETABLES)
    assert hv.domain.assisted(VmAssist.PAE_EXTENDED_CR3)
    assert hv.domain.assisted(VmAssist.FOUR_GB_SEGMENTS) == (bench.word == 4)
