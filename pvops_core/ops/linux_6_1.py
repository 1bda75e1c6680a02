"""The table of Linux 6.1: its ops in order, of which a 32-bit kernel has some.

Prototypes as in ``arch/x86/include/asm/paravirt_types.h`` and, for callee-save ops, whose struct shows none,
as the inline functions of ``asm/paravirt.h`` call them. Argument names missing there are those of the native
implementation.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from pvops_core.ops.declare import in_order

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.ops.model import Convention, Op

_HEADER: Final = "arch/x86/include/asm/paravirt_types.h (6.1)"

_OPS: Final = {
    "cpu": [
        "void io_delay(void)",
        "unsigned long get_debugreg(int regno)",
        "void set_debugreg(int regno, unsigned long value)",
        "unsigned long read_cr0(void)",
        "void write_cr0(unsigned long cr0)",
        "void write_cr4(unsigned long cr4)",
        "void load_tr_desc(void)",
        "void load_gdt(const struct desc_ptr *dtr)",
        "void load_idt(const struct desc_ptr *dtr)",
        "void set_ldt(const void *desc, unsigned int entries)",
        "unsigned long store_tr(void)",
        "void load_tls(struct thread_struct *t, unsigned int cpu_nr)",
        "void load_gs_index(unsigned int idx)",
        "void write_ldt_entry(struct desc_struct *dt, int entrynum, const void *desc)",
        "void write_gdt_entry(struct desc_struct *dt, int entrynum, const void *desc, int size)",
        "void write_idt_entry(gate_desc *dt, int entrynum, const gate_desc *gate)",
        "void alloc_ldt(struct desc_struct *ldt, unsigned int entries)",
        "void free_ldt(struct desc_struct *ldt, unsigned int entries)",
        "void load_sp0(unsigned long sp0)",
        "void invalidate_io_bitmap(void)",
        "void update_io_bitmap(void)",
        "void wbinvd(void)",
        "void cpuid(unsigned int *eax, unsigned int *ebx, unsigned int *ecx, unsigned int *edx)",
        "u64 read_msr(unsigned int msr)",
        "void write_msr(unsigned int msr, unsigned int low, unsigned int high)",
        "u64 read_msr_safe(unsigned int msr, int *err)",
        "int write_msr_safe(unsigned int msr, unsigned int low, unsigned int high)",
        "u64 read_pmc(int counter)",
        "void start_context_switch(struct task_struct *prev)",
        "void end_context_switch(struct task_struct *next)",
    ],
    "irq": [
        "unsigned long save_fl(void)",
        "void irq_disable(void)",
        "void irq_enable(void)",
        "void safe_halt(void)",
        "void halt(void)",
    ],
    "mmu": [
        "void flush_tlb_user(void)",
        "void flush_tlb_kernel(void)",
        "void flush_tlb_one_user(unsigned long addr)",
        "void flush_tlb_multi(const struct cpumask *cpus, const struct flush_tlb_info *info)",
        "void tlb_remove_table(struct mmu_gather *tlb, void *table)",
        "void exit_mmap(struct mm_struct *mm)",
        "void notify_page_enc_status_changed(unsigned long pfn, int npages, bool enc)",
        "unsigned long read_cr2(void)",
        "void write_cr2(unsigned long cr2)",
        "unsigned long read_cr3(void)",
        "void write_cr3(unsigned long cr3)",
        "void activate_mm(struct mm_struct *prev, struct mm_struct *next)",
        "void dup_mmap(struct mm_struct *oldmm, struct mm_struct *mm)",
        "int pgd_alloc(struct mm_struct *mm)",
        "void pgd_free(struct mm_struct *mm, pgd_t *pgd)",
        "void alloc_pte(struct mm_struct *mm, unsigned long pfn)",
        "void alloc_pmd(struct mm_struct *mm, unsigned long pfn)",
        "void alloc_pud(struct mm_struct *mm, unsigned long pfn)",
        "void alloc_p4d(struct mm_struct *mm, unsigned long pfn)",
        "void release_pte(unsigned long pfn)",
        "void release_pmd(unsigned long pfn)",
        "void release_pud(unsigned long pfn)",
        "void release_p4d(unsigned long pfn)",
        "void set_pte(pte_t *ptep, pte_t pteval)",
        "void set_pmd(pmd_t *pmdp, pmd_t pmdval)",
        "pte_t ptep_modify_prot_start(struct vm_area_struct *vma, unsigned long addr, pte_t *ptep)",
        "void ptep_modify_prot_commit(struct vm_area_struct *vma, unsigned long addr, pte_t *ptep, pte_t pte)",
        "pteval_t pte_val(pte_t pte)",
        "pte_t make_pte(pteval_t val)",
        "pgdval_t pgd_val(pgd_t pgd)",
        "pgd_t make_pgd(pgdval_t val)",
        "void set_pud(pud_t *pudp, pud_t pudval)",
        "pmdval_t pmd_val(pmd_t pmd)",
        "pmd_t make_pmd(pmdval_t val)",
        "pudval_t pud_val(pud_t pud)",
        "pud_t make_pud(pudval_t val)",
        "void set_p4d(p4d_t *p4dp, p4d_t p4dval)",
        "p4dval_t p4d_val(p4d_t p4d)",
        "p4d_t make_p4d(p4dval_t val)",
        "void set_pgd(pgd_t *pgdp, pgd_t pgdval)",
        "void mmu_lazy_mode_enter(void)",
        "void mmu_lazy_mode_leave(void)",
        "void mmu_lazy_mode_flush(void)",
        "void set_fixmap(unsigned int idx, phys_addr_t phys, pgprot_t flags)",
    ],
    "lock": [
        "void queued_spin_lock_slowpath(struct qspinlock *lock, u32 val)",
        "void queued_spin_unlock(struct qspinlock *lock)",
        "void lock_wait(u8 *ptr, u8 val)",
        "void lock_kick(int cpu_nr)",
        "bool vcpu_is_preempted(long cpu_nr)",
    ],
}
"""In the order of struct paravirt_patch_template, with CONFIG_PARAVIRT_XXL."""

_CALLEE_SAVE: Final = frozenset({
    "save_fl", "irq_disable", "irq_enable", "read_cr2", "pte_val", "make_pte", "pgd_val", "make_pgd", "pmd_val",
    "make_pmd", "pud_val", "make_pud", "p4d_val", "make_p4d", "queued_spin_unlock", "vcpu_is_preempted",
})  # fmt: skip
"""Those that are a struct paravirt_callee_save."""

WITHOUT_XXL: Final = frozenset({
    "io_delay", "flush_tlb_user", "flush_tlb_kernel", "flush_tlb_one_user", "flush_tlb_multi", "tlb_remove_table",
    "exit_mmap", "notify_page_enc_status_changed", "queued_spin_lock_slowpath", "queued_spin_unlock", "lock_wait",
    "lock_kick", "vcpu_is_preempted",
})  # fmt: skip
"""What is left without CONFIG_PARAVIRT_XXL, which Xen PV alone selects: no 32-bit kernel has had it since 5.9."""


@cache
def ops(convention: Convention) -> Mapping[str, Op]:
    """The ops in the table's order, with the C calling convention of the machine: SYSV or REGPARM3."""
    return in_order(_HEADER, _OPS, convention, _CALLEE_SAVE)
