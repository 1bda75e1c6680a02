"""The tables: type numbers against what the kernels' own headers and images say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.errors import UsageError
from pvops_core.kinds import MachineKind
from pvops_core.ops import LAYOUTS, Convention, Layout

layouts = st.sampled_from(sorted(LAYOUTS.values(), key=lambda layout: layout.name))

SIZES = {
    "2.6.23": 79,
    "2.6.23-lapic": 85,
    "2.6.23-lapic-pae": 92,
    "2.6.24": 84,
    "6.1-64": 84,
    "6.1-32": 13,
    "6.12-64": 83,
    "7.2-64": 78,
}

ANCHORS = {
    "2.6.23": "0 kernel_rpl 1 shared_kernel_pmd 2 paravirt_enabled 3 name 4 patch 5 arch_setup 6 memory_setup "
    "7 post_allocator_init 8 init_IRQ 9 time_init 10 pagetable_setup_start 12 banner 13 get_wallclock 15 cpuid "
    "16 get_debugreg 18 clts 19 read_cr0 21 read_cr2 23 read_cr3 25 read_cr4_safe 26 read_cr4 28 save_fl 29 restore_fl "
    "30 irq_disable 31 irq_enable 32 safe_halt 33 halt 34 wbinvd 35 read_msr 37 read_tsc 38 read_pmc 39 sched_clock "
    "40 get_cpu_khz 41 load_tr_desc 42 load_gdt 44 store_gdt 46 set_ldt 47 store_tr 48 load_tls 49 write_ldt_entry "
    "52 load_esp0 53 set_iopl_mask 54 io_delay 55 activate_mm 57 exit_mmap 58 flush_tlb_user 61 flush_tlb_others "
    "62 alloc_pt 64 alloc_pd_clone 67 set_pte 69 set_pmd 70 pte_update 72 pte_val 73 pgd_val 74 make_pte 75 make_pgd "
    "76 set_lazy_mode 77 irq_enable_sysexit 78 iret",
    "2.6.23-lapic": "57 exit_mmap 58 apic_write 63 startup_ipi_hook 64 flush_tlb_user 84 iret",
    "2.6.23-lapic-pae": "77 pte_update_defer 78 set_pte_atomic 82 pmd_clear 83 pte_val 84 pmd_val 88 make_pgd 91 iret",
    "2.6.24": "0 patch 5 time_init 12 clts 36 read_tsc 38 irq_enable_sysexit 39 iret 40 cpu_lazy_mode_enter "
    "41 cpu_lazy_mode_leave 42 init_IRQ 43 save_fl 44 restore_fl 45 irq_disable 46 irq_enable 47 safe_halt 48 halt "
    "49 apic_write 55 pagetable_setup_start 64 flush_tlb_user 73 set_pte 78 pte_val 79 pgd_val 80 make_pte 81 make_pgd",
    "2.6.24-nolapic": "48 halt 49 pagetable_setup_start 72 pte_val",
    "6.1-64": "0 io_delay 29 end_context_switch 30 save_fl 31 irq_disable 32 irq_enable 34 halt 35 flush_tlb_user "
    "42 read_cr2 45 write_cr3 58 set_pte 62 pte_val 74 set_pgd 75 mmu_lazy_mode_enter 78 set_fixmap "
    "79 queued_spin_lock_slowpath 81 lock_wait 82 lock_kick 83 vcpu_is_preempted",
    "6.1-32": "0 io_delay 1 flush_tlb_user 7 notify_page_enc_status_changed 9 queued_spin_unlock 12 vcpu_is_preempted",
    "6.12-64": "0 io_delay 46 enter_mmap 47 pgd_alloc 57 set_pte 74 mmu_lazy_mode_enter 77 set_fixmap "
    "78 queued_spin_lock_slowpath 82 vcpu_is_preempted",
    "7.2-64": "0 get_debugreg 20 cpuid 22 write_msr 28 save_fl 40 write_cr2 43 enter_mmap 54 set_pte 71 "
    "mmu_lazy_mode_flush 72 set_fixmap 73 queued_spin_lock_slowpath 75 lock_wait 77 vcpu_is_preempted",
}


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_a_table_has_as_many_slots_as_the_kernel_struct(name: str, size: int) -> None:
    assert len(LAYOUTS[name].slots) == size


@pytest.mark.parametrize("name", ANCHORS)
def test_type_numbers_are_those_of_the_headers(name: str) -> None:
    words = ANCHORS[name].split()
    for number, op in zip(words[::2], words[1::2], strict=True):
        assert LAYOUTS[name].by_op(op).type == int(number), op


@given(layouts)
def test_type_numbers_rise_without_gaps_and_lead_back(layout: Layout) -> None:
    assert [slot.type for slot in layout.slots] == list(range(len(layout.slots)))
    assert [slot.type for slot in layout.boot_hooks] == list(range(len(layout.boot_hooks)))
    for slot in layout.slots:
        assert layout.by_type(slot.type) is layout.by_op(slot.op.name) is layout.by_path(slot.path) is slot


@given(layouts)
def test_names_and_paths_are_unique_within_a_layout(layout: Layout) -> None:
    names = [slot.op.name for slot in (*layout.slots, *layout.boot_hooks)]
    paths = [slot.path for slot in layout.slots]
    assert len(set(names)) == len(names)
    assert len(set(paths)) == len(paths)


def test_a_hook_name_is_the_last_component_of_one_path_everywhere() -> None:
    renamed = {"lock_wait", "lock_kick"}
    for layout in LAYOUTS.values():
        for slot in layout.slots:
            last = slot.path.replace("lazy_mode_", "lazy_mode.").rpartition(".")[2]
            if "lazy_mode" in slot.path and slot.op.name != "set_lazy_mode":
                group = slot.path.split(".")[0].removeprefix("pv_").removesuffix("_ops")
                assert slot.op.name == f"{group}_lazy_mode_{last}"
            elif slot.op.name in renamed:
                assert slot.op.name == f"lock_{last}"
            else:
                assert slot.op.name == last


@given(layouts)
def test_only_what_has_no_slot_is_a_boot_hook(layout: Layout) -> None:
    for slot in layout.boot_hooks:
        assert not layout.has_slot(slot.op.name)
        assert slot.op.name in layout
    for name in ("patch", "pagetable_reserve", "pagetable_setup_start", "pagetable_setup_done"):
        assert name in layout


@given(layouts, st.integers(min_value=0, max_value=1 << 40))
def test_slots_lie_where_the_patch_site_operand_points(layout: Layout, base: int) -> None:
    symbols: dict[str, int] = {}
    for slot in layout.slots:
        # As if the kernel's variables lay side by side, in the order of the template.
        symbols.setdefault(slot.symbol, base + slot.type * layout.pointer_size)
        assert layout.slot_address(symbols, slot.type) == base + slot.type * layout.pointer_size


def test_a_missing_symbol_is_named() -> None:
    with pytest.raises(UsageError, match="pv_mmu_ops"):
        LAYOUTS["2.6.24"].slot_address({"pv_cpu_ops": 0}, 73)


@given(layouts, st.integers())
def test_a_type_number_outside_the_table_is_refused(layout: Layout, number: int) -> None:
    if not 0 <= number < len(layout.slots):
        with pytest.raises(UsageError, match="no op of type"):
            layout.by_type(number)


@given(layouts, st.text())
def test_an_unknown_name_is_refused(layout: Layout, name: str) -> None:
    if name not in layout:
        with pytest.raises(UsageError, match="no op"):
            layout.by_op(name)


@given(layouts)
def test_conventions_belong_to_the_machine(layout: Layout) -> None:
    conventions = {slot.op.convention for slot in layout.slots}
    if layout.kind is MachineKind.X86_64:
        assert conventions == {Convention.SYSV, Convention.CALLEE_SAVE}
    else:
        assert Convention.SYSV not in conventions
    assert (Convention.NONE in conventions) == layout.name.startswith("2.6.23")
    assert (Convention.JUMP in conventions) == layout.name.startswith("2.6")


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("record", "layout"),
    [
        ("native-cloud", "6.1-64"),
        ("xen-generic-1cpu", "6.1-64"),
        ("c612-native", "6.12-64"),
        ("g612-xen1", "6.12-64"),
        ("c72-native", "7.2-64"),
    ],
)
def test_paths_are_those_of_the_kernel_that_was_recorded(
    oracle: Callable[[str], Mapping[str, Any]], record: str, layout: str
) -> None:
    assert [entry[0] for entry in oracle(record)["ops"]] == [slot.path for slot in LAYOUTS[layout].slots]


def test_locks_of_today_have_a_table_of_their_own() -> None:
    layout = LAYOUTS["7.2-64"]
    symbols = {"pv_ops": 0x1000, "pv_ops_lock": 0x8000}
    assert layout.slot_address(symbols, layout.by_path("mmu.set_fixmap").type) == 0x1000 + 8 * 72
    assert layout.slot_address(symbols, layout.by_path("lock.wait").type) == 0x8000 + 8 * 2
