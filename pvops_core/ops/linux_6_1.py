"""The ops of Linux 6.1, 64-bit and 32-bit.

Prototypes as in ``arch/x86/include/asm/paravirt_types.h`` and, for callee-save ops, whose struct shows none,
as the inline functions of ``asm/paravirt.h`` call them. Argument names missing there are those of the native
implementation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pvops_core.ops.declare import declare
from pvops_core.ops.model import Clobber, Convention, Op

_HEADER = "arch/x86/include/asm/paravirt_types.h (6.1)"

_C = {
    "cpu": [
        ("void io_delay(void)", "Wait about a microsecond, as a write to port 0x80 does."),
        ("unsigned long get_debugreg(int regno)", "Read a debug register."),
        ("void set_debugreg(int regno, unsigned long value)", "Write a debug register."),
        ("unsigned long read_cr0(void)", "Read CR0."),
        ("void write_cr0(unsigned long cr0)", "Write CR0."),
        ("void write_cr4(unsigned long cr4)", "Write CR4."),
        ("void load_tr_desc(void)", "Load the task register with the CPU's TSS."),
        ("void load_gdt(const struct desc_ptr *dtr)", "Load GDTR."),
        ("void load_idt(const struct desc_ptr *dtr)", "Load IDTR."),
        ("void set_ldt(const void *desc, unsigned int entries)", "Make a table the LDT."),
        ("unsigned long store_tr(void)", "Read the task register."),
        (
            "void load_tls(struct thread_struct *t, unsigned int cpu_nr)",
            "Copy a thread's TLS descriptors into a CPU's GDT.",
        ),
        ("void load_gs_index(unsigned int idx)", "Load a selector into GS of user mode."),
        (
            "void write_ldt_entry(struct desc_struct *dt, int entrynum, const void *desc)",
            "Write a descriptor of an LDT.",
        ),
        (
            "void write_gdt_entry(struct desc_struct *dt, int entrynum, const void *desc, int size)",
            "Write a descriptor of a GDT.",
        ),
        (
            "void write_idt_entry(gate_desc *dt, int entrynum, const gate_desc *gate)",
            "Write a gate of an IDT.",
        ),
        (
            "void alloc_ldt(struct desc_struct *ldt, unsigned int entries)",
            "Called when memory becomes an LDT.",
        ),
        (
            "void free_ldt(struct desc_struct *ldt, unsigned int entries)",
            "Called when memory is no longer an LDT.",
        ),
        ("void load_sp0(unsigned long sp0)", "Set the stack that traps from user mode start on."),
        ("void invalidate_io_bitmap(void)", "Take the I/O permission bitmap out of force."),
        ("void update_io_bitmap(void)", "Bring the current task's I/O permission bitmap into force."),
        ("void wbinvd(void)", "Write back and invalidate the caches."),
        (
            "void cpuid(unsigned int *eax, unsigned int *ebx, unsigned int *ecx, unsigned int *edx)",
            "Execute cpuid on the leaf in *eax and the sub-leaf in *ecx.",
        ),
        ("u64 read_msr(unsigned int msr)", "Read a model-specific register that must exist."),
        (
            "void write_msr(unsigned int msr, unsigned int low, unsigned int high)",
            "Write a model-specific register that must exist.",
        ),
        (
            "u64 read_msr_safe(unsigned int msr, int *err)",
            "Read a model-specific register; *err becomes 0 or -EIO.",
        ),
        (
            "int write_msr_safe(unsigned int msr, unsigned int low, unsigned int high)",
            "Write a model-specific register; 0 or -EIO.",
        ),
        ("u64 read_pmc(int counter)", "Read a performance counter."),
        (
            "void start_context_switch(struct task_struct *prev)",
            "Begin a context switch, whose updates may be batched.",
        ),
        (
            "void end_context_switch(struct task_struct *next)",
            "End a context switch: batched updates take effect.",
        ),
    ],
    "irq": [
        ("void safe_halt(void)", "Enable interrupts and wait for one, without a gap between."),
        ("void halt(void)", "Wait with interrupts as they are."),
    ],
    "mmu": [
        ("void flush_tlb_user(void)", "Flush the current address space on this CPU."),
        ("void flush_tlb_kernel(void)", "Flush all TLB entries of this CPU, global ones too."),
        ("void flush_tlb_one_user(unsigned long addr)", "Flush one user page's TLB entry on this CPU."),
        (
            "void flush_tlb_multi(const struct cpumask *cpus, const struct flush_tlb_info *info)",
            "Flush a range of an address space on several CPUs.",
        ),
        (
            "void tlb_remove_table(struct mmu_gather *tlb, void *table)",
            "Free a page table once no CPU can walk it.",
        ),
        ("void exit_mmap(struct mm_struct *mm)", "Called before an address space is torn down."),
        (
            "void notify_page_enc_status_changed(unsigned long pfn, int npages, bool enc)",
            "Called when pages were made encrypted or shared.",
        ),
        ("void write_cr2(unsigned long cr2)", "Write CR2."),
        ("unsigned long read_cr3(void)", "Read the page-table base."),
        ("void write_cr3(unsigned long cr3)", "Load a page-table base."),
        (
            "void activate_mm(struct mm_struct *prev, struct mm_struct *next)",
            "Called when an address space is first used.",
        ),
        (
            "void dup_mmap(struct mm_struct *oldmm, struct mm_struct *mm)",
            "Called when fork has copied an address space.",
        ),
        ("int pgd_alloc(struct mm_struct *mm)", "Called when a top-level table was allocated; 0 or -ENOMEM."),
        ("void pgd_free(struct mm_struct *mm, pgd_t *pgd)", "Called before a top-level table is freed."),
        (
            "void alloc_pte(struct mm_struct *mm, unsigned long pfn)",
            "Called before a page becomes a level-1 table.",
        ),
        (
            "void alloc_pmd(struct mm_struct *mm, unsigned long pfn)",
            "Called before a page becomes a level-2 table.",
        ),
        (
            "void alloc_pud(struct mm_struct *mm, unsigned long pfn)",
            "Called before a page becomes a level-3 table.",
        ),
        (
            "void alloc_p4d(struct mm_struct *mm, unsigned long pfn)",
            "Called before a page becomes a level-4 table under a fifth level.",
        ),
        ("void release_pte(unsigned long pfn)", "Called when a page is no longer a level-1 table."),
        ("void release_pmd(unsigned long pfn)", "Called when a page is no longer a level-2 table."),
        ("void release_pud(unsigned long pfn)", "Called when a page is no longer a level-3 table."),
        (
            "void release_p4d(unsigned long pfn)",
            "Called when a page is no longer a level-4 table under a fifth level.",
        ),
        ("void set_pte(pte_t *ptep, pte_t pteval)", "Write a level-1 entry."),
        ("void set_pmd(pmd_t *pmdp, pmd_t pmdval)", "Write a level-2 entry."),
        (
            "pte_t ptep_modify_prot_start(struct vm_area_struct *vma, unsigned long addr, pte_t *ptep)",
            "Read an entry whose protection is about to change, keeping the hardware off it.",
        ),
        (
            "void ptep_modify_prot_commit(struct vm_area_struct *vma, unsigned long addr, pte_t *ptep, pte_t pte)",
            "Write the entry that ptep_modify_prot_start read.",
        ),
        ("void set_pud(pud_t *pudp, pud_t pudval)", "Write a level-3 entry."),
        ("void set_p4d(p4d_t *p4dp, p4d_t p4dval)", "Write a level-4 entry."),
        ("void set_pgd(pgd_t *pgdp, pgd_t pgdval)", "Write a level-5 entry."),
        ("void mmu_lazy_mode_enter(void)", "Begin a run of page-table updates, which may be batched."),
        ("void mmu_lazy_mode_leave(void)", "End a run of page-table updates: they take effect."),
        (
            "void mmu_lazy_mode_flush(void)",
            "Bring batched page-table updates into effect and go on batching.",
        ),
        (
            "void set_fixmap(unsigned int idx, phys_addr_t phys, pgprot_t flags)",
            "Map a physical page at a fixed virtual address.",
        ),
    ],
    "lock": [
        (
            "void queued_spin_lock_slowpath(struct qspinlock *lock, u32 val)",
            "Take a spinlock that was found taken.",
        ),
        ("void lock_wait(u8 *ptr, u8 val)", "Sleep until kicked, if a byte still has a value."),
        ("void lock_kick(int cpu_nr)", "Wake a CPU that sleeps in wait."),
    ],
}

_CALLEE_SAVE = {
    "irq": [
        ("unsigned long save_fl(void)", "Read the interrupt flag, as bit 9 of an RFLAGS image."),
        ("void irq_disable(void)", "Disable interrupts."),
        ("void irq_enable(void)", "Enable interrupts."),
    ],
    "mmu": [
        ("unsigned long read_cr2(void)", "Read the address of the last page fault."),
        ("pteval_t pte_val(pte_t pte)", "What the kernel should see of a level-1 entry as stored."),
        ("pte_t make_pte(pteval_t val)", "The level-1 entry to store for what the kernel means."),
        ("pgdval_t pgd_val(pgd_t pgd)", "What the kernel should see of a top-level entry as stored."),
        ("pgd_t make_pgd(pgdval_t val)", "The top-level entry to store for what the kernel means."),
        ("pmdval_t pmd_val(pmd_t pmd)", "What the kernel should see of a level-2 entry as stored."),
        ("pmd_t make_pmd(pmdval_t val)", "The level-2 entry to store for what the kernel means."),
        ("pudval_t pud_val(pud_t pud)", "What the kernel should see of a level-3 entry as stored."),
        ("pud_t make_pud(pudval_t val)", "The level-3 entry to store for what the kernel means."),
        ("p4dval_t p4d_val(p4d_t p4d)", "What the kernel should see of a level-4 entry as stored."),
        ("p4d_t make_p4d(p4dval_t val)", "The level-4 entry to store for what the kernel means."),
    ],
    "lock": [
        ("void queued_spin_unlock(struct qspinlock *lock)", "Release a spinlock."),
        ("bool vcpu_is_preempted(long cpu_nr)", "Whether a vCPU is off its processor now."),
    ],
}


def ops(convention: Convention) -> Mapping[str, Op]:
    """The ops with the C calling convention of the machine: SYSV or REGPARM3."""

    def declared() -> Iterator[Op]:
        for group, declarations in _C.items():
            for text, doc in declarations:
                yield declare(group, _HEADER, text, doc, convention)
        for group, declarations in _CALLEE_SAVE.items():
            for text, doc in declarations:
                yield declare(group, _HEADER, text, doc, Convention.CALLEE_SAVE, Clobber.EAX)

    return {op.name: op for op in declared()}
