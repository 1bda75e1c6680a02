"""The tables themselves: which op has which type number in which generation of kernels.

Orders are those of the structs in the headers that ``linux_2_6``, ``linux_6_1`` and their successors name, for kernels
without CONFIG_HIGHPTE.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import attrs

from pvops_core.kinds import MachineKind
from pvops_core.ops import linux_2_6, linux_6_1, linux_6_12, linux_7_2
from pvops_core.ops.boot import boot_hooks
from pvops_core.ops.model import Convention, Layout, Op, Slot

_PATHS = {
    "cpu_lazy_mode_enter": "lazy_mode.enter",
    "cpu_lazy_mode_leave": "lazy_mode.leave",
    "mmu_lazy_mode_enter": "lazy_mode.enter",
    "mmu_lazy_mode_leave": "lazy_mode.leave",
    "mmu_lazy_mode_flush": "lazy_mode.flush",
    "lock_wait": "wait",
    "lock_kick": "kick",
}
"""Paths below the group of those ops whose hook name is not the kernel's."""

_SEED_HEAD = """
    kernel_rpl shared_kernel_pmd paravirt_enabled name patch arch_setup memory_setup post_allocator_init
    init_IRQ time_init pagetable_setup_start pagetable_setup_done banner get_wallclock set_wallclock cpuid
    get_debugreg set_debugreg clts read_cr0 write_cr0 read_cr2 write_cr2 read_cr3 write_cr3 read_cr4_safe
    read_cr4 write_cr4 save_fl restore_fl irq_disable irq_enable safe_halt halt wbinvd read_msr write_msr
    read_tsc read_pmc sched_clock get_cpu_khz load_tr_desc load_gdt load_idt store_gdt store_idt set_ldt
    store_tr load_tls write_ldt_entry write_gdt_entry write_idt_entry load_esp0 set_iopl_mask io_delay
    activate_mm dup_mmap exit_mmap
"""
_APIC = "apic_write apic_write_atomic apic_read setup_boot_clock setup_secondary_clock startup_ipi_hook"
_FLUSH_AND_SET = """
    flush_tlb_user flush_tlb_kernel flush_tlb_single flush_tlb_others alloc_pt alloc_pd alloc_pd_clone
    release_pt release_pd set_pte set_pte_at set_pmd pte_update pte_update_defer
"""
_CONVERT = "pte_val pgd_val make_pte make_pgd"
_PAE = """
    set_pte_atomic set_pte_present set_pud pte_clear pmd_clear pte_val pmd_val pgd_val make_pte make_pmd
    make_pgd
"""
_SEED_TAIL = "set_lazy_mode irq_enable_sysexit iret"

_SPLIT = {
    "pv_init_ops": "patch arch_setup memory_setup post_allocator_init banner",
    "pv_time_ops": "time_init get_wallclock set_wallclock sched_clock get_cpu_khz",
    "pv_cpu_ops": """
        get_debugreg set_debugreg clts read_cr0 write_cr0 read_cr4_safe read_cr4 write_cr4 load_tr_desc
        load_gdt load_idt store_gdt store_idt set_ldt store_tr load_tls write_ldt_entry write_gdt_entry
        write_idt_entry load_esp0 set_iopl_mask wbinvd io_delay cpuid read_msr write_msr read_tsc read_pmc
        irq_enable_sysexit iret cpu_lazy_mode_enter cpu_lazy_mode_leave
    """,
    "pv_irq_ops": "init_IRQ save_fl restore_fl irq_disable irq_enable safe_halt halt",
    "pv_apic_ops": _APIC,
    "pv_mmu_ops": f"""
        pagetable_setup_start pagetable_setup_done read_cr2 write_cr2 read_cr3 write_cr3 activate_mm dup_mmap
        exit_mmap {_FLUSH_AND_SET}
    """,
}
_SPLIT_TAIL = "mmu_lazy_mode_enter mmu_lazy_mode_leave"

_XXL = {
    "cpu": """
        io_delay get_debugreg set_debugreg read_cr0 write_cr0 write_cr4 load_tr_desc load_gdt load_idt set_ldt
        store_tr load_tls load_gs_index write_ldt_entry write_gdt_entry write_idt_entry alloc_ldt free_ldt
        load_sp0 invalidate_io_bitmap update_io_bitmap wbinvd cpuid read_msr write_msr read_msr_safe
        write_msr_safe read_pmc start_context_switch end_context_switch
    """,
    "irq": "save_fl irq_disable irq_enable safe_halt halt",
    "mmu": """
        flush_tlb_user flush_tlb_kernel flush_tlb_one_user flush_tlb_multi tlb_remove_table exit_mmap
        notify_page_enc_status_changed read_cr2 write_cr2 read_cr3 write_cr3 activate_mm dup_mmap pgd_alloc
        pgd_free alloc_pte alloc_pmd alloc_pud alloc_p4d release_pte release_pmd release_pud release_p4d
        set_pte set_pmd ptep_modify_prot_start ptep_modify_prot_commit pte_val make_pte pgd_val make_pgd
        set_pud pmd_val make_pmd pud_val make_pud set_p4d p4d_val make_p4d set_pgd mmu_lazy_mode_enter
        mmu_lazy_mode_leave mmu_lazy_mode_flush set_fixmap
    """,
    "lock": "queued_spin_lock_slowpath queued_spin_unlock lock_wait lock_kick vcpu_is_preempted",
}
_XXL_6_12 = {**_XXL, "mmu": _XXL["mmu"].replace("activate_mm dup_mmap", "enter_mmap")}
_GONE_BY_7_2 = frozenset(["io_delay", "wbinvd", "tlb_remove_table", "mmu_lazy_mode_enter", "mmu_lazy_mode_leave"])
_XXL_7_2 = {group: " ".join(op for op in names.split() if op not in _GONE_BY_7_2) for group, names in _XXL_6_12.items()}
_NOT_XXL = {
    "cpu": "io_delay",
    "irq": "",
    "mmu": """
        flush_tlb_user flush_tlb_kernel flush_tlb_one_user flush_tlb_multi tlb_remove_table exit_mmap
        notify_page_enc_status_changed
    """,
    "lock": _XXL["lock"],
}


def _layout(name: str, kind: MachineKind, slots: Iterable[Slot], convention: Convention, record_size: int) -> Layout:
    table = tuple(slots)
    taken = frozenset(slot.op.name for slot in table)
    return Layout(name, kind, table, boot_hooks(taken, convention, kind.pointer_size), record_size)


def _seed(name: str, *, lapic: bool = False, pae: bool = False) -> Layout:
    names = " ".join(
        [_SEED_HEAD, _APIC if lapic else "", _FLUSH_AND_SET, _PAE if pae else _CONVERT, _SEED_TAIL]
    ).split()
    slots = (Slot(n, linux_2_6.OPS[op], op, "paravirt_ops", 4 * n) for n, op in enumerate(names))
    return _layout(name, MachineKind.PAE if pae else MachineKind.I386, slots, Convention.REGPARM3, 8)


def _split(name: str, *, lapic: bool = True, pae: bool = False) -> Layout:
    groups = dict(_SPLIT)
    groups["pv_mmu_ops"] += f" {_PAE if pae else _CONVERT} {_SPLIT_TAIL}"
    if not lapic:
        groups["pv_apic_ops"] = ""
    slots: list[Slot] = []
    for symbol, names in groups.items():
        first = len(slots)
        for op in names.split():
            path = f"{symbol}.{_PATHS.get(op, op)}"
            slots.append(Slot(len(slots), linux_2_6.OPS[op], path, symbol, 4 * (len(slots) - first)))
    return _layout(name, MachineKind.PAE if pae else MachineKind.I386, slots, Convention.REGPARM3, 8)


def _template(
    name: str,
    kind: MachineKind,
    groups: Mapping[str, str],
    ops: Mapping[str, Op],
    convention: Convention,
    *,
    annotated: bool = True,
) -> Layout:
    paths = [(f"{group}.{_PATHS.get(op, op)}", op) for group, names in groups.items() for op in names.split()]
    size = kind.pointer_size
    slots = (Slot(n, ops[op], path, "pv_ops", size * n) for n, (path, op) in enumerate(paths))
    return _layout(name, kind, slots, convention, 2 * size if annotated else 0)


def _with_own_locks(layout: Layout) -> Layout:
    """The layout of 7.2: lock ops in a table of their own, and one op of lazy MMU mode left, which has no struct."""
    first = next(slot.type for slot in layout.slots if slot.path.startswith("lock."))
    moved = tuple(
        attrs.evolve(slot, symbol="pv_ops_lock", offset=slot.offset - first * layout.pointer_size)
        if slot.type >= first
        else attrs.evolve(slot, path=slot.path.replace("lazy_mode.", "lazy_mode_"))
        for slot in layout.slots
    )
    return attrs.evolve(layout, slots=moved)


_SYSV = linux_6_1.ops(Convention.SYSV)
_SYSV_6_12 = linux_6_12.ops(Convention.SYSV)
_SYSV_7_2 = linux_7_2.ops(Convention.SYSV)
_REGPARM3 = linux_6_1.ops(Convention.REGPARM3)

LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        layout.name: layout
        for layout in (
            _seed("2.6.23"),
            _seed("2.6.23-lapic", lapic=True),
            _seed("2.6.23-pae", pae=True),
            _seed("2.6.23-lapic-pae", lapic=True, pae=True),
            _split("2.6.24"),
            _split("2.6.24-pae", pae=True),
            _split("2.6.24-nolapic", lapic=False),
            _split("2.6.24-nolapic-pae", lapic=False, pae=True),
            _template("6.1-64", MachineKind.X86_64, _XXL, _SYSV, Convention.SYSV),
            _template("6.1-32", MachineKind.PAE, _NOT_XXL, _REGPARM3, Convention.REGPARM3),
            _template("6.12-64", MachineKind.X86_64, _XXL_6_12, _SYSV_6_12, Convention.SYSV, annotated=False),
            _with_own_locks(
                _template("7.2-64", MachineKind.X86_64, _XXL_7_2, _SYSV_7_2, Convention.SYSV, annotated=False)
            ),
        )
    }
)
"""Every layout by name. The 2.6.23 and 2.6.24 names say which configuration options add slots."""
