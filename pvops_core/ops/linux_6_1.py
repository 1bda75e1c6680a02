"""The ops of Linux 6.1, 64-bit and 32-bit.

Prototypes as in ``arch/x86/include/asm/paravirt_types.h`` and, for callee-save ops, whose struct shows none,
as the inline functions of ``asm/paravirt.h`` call them. Argument names missing there are those of the native
implementation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType

from pvops_core.ops.declare import declare
from pvops_core.ops.model import Clobber, Convention, Op

_HEADER = "arch/x86/include/asm/paravirt_types.h (6.1)"

_C = {
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
        "void set_pud(pud_t *pudp, pud_t pudval)",
        "void set_p4d(p4d_t *p4dp, p4d_t p4dval)",
        "void set_pgd(pgd_t *pgdp, pgd_t pgdval)",
        "void mmu_lazy_mode_enter(void)",
        "void mmu_lazy_mode_leave(void)",
        "void mmu_lazy_mode_flush(void)",
        "void set_fixmap(unsigned int idx, phys_addr_t phys, pgprot_t flags)",
    ],
    "lock": [
        "void queued_spin_lock_slowpath(struct qspinlock *lock, u32 val)",
        "void lock_wait(u8 *ptr, u8 val)",
        "void lock_kick(int cpu_nr)",
    ],
}

_CALLEE_SAVE = {
    "irq": [
        "unsigned long save_fl(void)",
        "void irq_disable(void)",
        "void irq_enable(void)",
    ],
    "mmu": [
        "unsigned long read_cr2(void)",
        "pteval_t pte_val(pte_t pte)",
        "pte_t make_pte(pteval_t val)",
        "pgdval_t pgd_val(pgd_t pgd)",
        "pgd_t make_pgd(pgdval_t val)",
        "pmdval_t pmd_val(pmd_t pmd)",
        "pmd_t make_pmd(pmdval_t val)",
        "pudval_t pud_val(pud_t pud)",
        "pud_t make_pud(pudval_t val)",
        "p4dval_t p4d_val(p4d_t p4d)",
        "p4d_t make_p4d(p4dval_t val)",
    ],
    "lock": [
        "void queued_spin_unlock(struct qspinlock *lock)",
        "bool vcpu_is_preempted(long cpu_nr)",
    ],
}


@cache
def ops(convention: Convention) -> Mapping[str, Op]:
    """The ops with the C calling convention of the machine: SYSV or REGPARM3."""

    def declared() -> Iterator[Op]:
        for group, declarations in _C.items():
            for text in declarations:
                yield declare(group, _HEADER, text, convention)
        for group, declarations in _CALLEE_SAVE.items():
            for text in declarations:
                yield declare(group, _HEADER, text, Convention.CALLEE_SAVE, Clobber.EAX)

    return MappingProxyType({op.name: op for op in declared()})
