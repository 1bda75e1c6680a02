"""The ops of Linux 2.6.23 and 2.6.24 (i386): declarations shared by both tables.

Where the struct leaves an argument unnamed the name is that of the header's own inline wrapper. The struct
declares the value of write_msr as one u64 and read_pmc without argument, but the wrappers pass ``low, high``
and ``counter``, and so do these declarations: the registers are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pvops_core.ops.declare import declare
from pvops_core.ops.model import Clobber, Convention, Op

_HEADER = "include/asm-i386/paravirt.h (2.6.23, ab144f5ec64c); include/asm-x86/paravirt.h (2.6.24)"

_DATA = {
    "info": [
        "unsigned int kernel_rpl",
        "int shared_kernel_pmd",
        "int paravirt_enabled",
        "const char *name",
    ],
}

_FUNCTIONS = {
    "init": [
        "unsigned int patch(u8 type, u16 clobbers, void *insnbuf, unsigned long addr, unsigned int len)",
        "void arch_setup(void)",
        "char *memory_setup(void)",
        "void post_allocator_init(void)",
        "void banner(void)",
    ],
    "time": [
        "void time_init(void)",
        "unsigned long get_wallclock(void)",
        "int set_wallclock(unsigned long nowtime)",
        "unsigned long long sched_clock(void)",
        "unsigned long get_cpu_khz(void)",
    ],
    "cpu": [
        "void cpuid(unsigned int *eax, unsigned int *ebx, unsigned int *ecx, unsigned int *edx)",
        "unsigned long get_debugreg(int regno)",
        "void set_debugreg(int regno, unsigned long value)",
        "void clts(void)",
        "unsigned long read_cr0(void)",
        "void write_cr0(unsigned long cr0)",
        "unsigned long read_cr4_safe(void)",
        "unsigned long read_cr4(void)",
        "void write_cr4(unsigned long cr4)",
        "void wbinvd(void)",
        "u64 read_msr(unsigned int msr, int *err)",
        "int write_msr(unsigned int msr, unsigned int low, unsigned int high)",
        "u64 read_tsc(void)",
        "u64 read_pmc(int counter)",
        "void load_tr_desc(void)",
        "void load_gdt(const struct Xgt_desc_struct *dtr)",
        "void load_idt(const struct Xgt_desc_struct *dtr)",
        "void store_gdt(struct Xgt_desc_struct *dtr)",
        "void store_idt(struct Xgt_desc_struct *dtr)",
        "void set_ldt(const void *desc, unsigned int entries)",
        "unsigned long store_tr(void)",
        "void load_tls(struct thread_struct *t, unsigned int cpu_nr)",
        "void write_ldt_entry(struct desc_struct *dt, int entrynum, u32 low, u32 high)",
        "void write_gdt_entry(struct desc_struct *dt, int entrynum, u32 low, u32 high)",
        "void write_idt_entry(struct desc_struct *dt, int entrynum, u32 low, u32 high)",
        "void load_esp0(struct tss_struct *tss, struct thread_struct *thread)",
        "void set_iopl_mask(unsigned int mask)",
        "void io_delay(void)",
    ],
    "irq": [
        "void init_IRQ(void)",
        "void safe_halt(void)",
        "void halt(void)",
    ],
    "apic": [
        "void apic_write(unsigned long reg, unsigned long v)",
        "void apic_write_atomic(unsigned long reg, unsigned long v)",
        "unsigned long apic_read(unsigned long reg)",
        "void setup_boot_clock(void)",
        "void setup_secondary_clock(void)",
        "void startup_ipi_hook(int phys_apicid, unsigned long start_eip, unsigned long start_esp)",
    ],
    "mmu": [
        "void pagetable_setup_start(pgd_t *pgd_base)",
        "void pagetable_setup_done(pgd_t *pgd_base)",
        "unsigned long read_cr2(void)",
        "void write_cr2(unsigned long cr2)",
        "unsigned long read_cr3(void)",
        "void write_cr3(unsigned long cr3)",
        "void activate_mm(struct mm_struct *prev, struct mm_struct *next)",
        "void dup_mmap(struct mm_struct *oldmm, struct mm_struct *mm)",
        "void exit_mmap(struct mm_struct *mm)",
        "void flush_tlb_user(void)",
        "void flush_tlb_kernel(void)",
        "void flush_tlb_single(unsigned long addr)",
        "void flush_tlb_others(const cpumask_t *cpus, struct mm_struct *mm, unsigned long va)",
        "void alloc_pt(struct mm_struct *mm, u32 pfn)",
        "void alloc_pd(u32 pfn)",
        "void alloc_pd_clone(u32 pfn, u32 clonepfn, u32 start, u32 count)",
        "void release_pt(u32 pfn)",
        "void release_pd(u32 pfn)",
        "void set_pte(pte_t *ptep, pte_t pteval)",
        "void set_pte_at(struct mm_struct *mm, unsigned long addr, pte_t *ptep, pte_t pteval)",
        "void set_pmd(pmd_t *pmdp, pmd_t pmdval)",
        "void pte_update(struct mm_struct *mm, unsigned long addr, pte_t *ptep)",
        "void pte_update_defer(struct mm_struct *mm, unsigned long addr, pte_t *ptep)",
        "void set_pte_atomic(pte_t *ptep, pte_t pteval)",
        "void set_pte_present(struct mm_struct *mm, unsigned long addr, pte_t *ptep, pte_t pte)",
        "void set_pud(pud_t *pudp, pud_t pudval)",
        "void pte_clear(struct mm_struct *mm, unsigned long addr, pte_t *ptep)",
        "void pmd_clear(pmd_t *pmdp)",
        "pteval_t pte_val(pte_t pte)",
        "pmdval_t pmd_val(pmd_t pmd)",
        "pgdval_t pgd_val(pgd_t pgd)",
        "pte_t make_pte(pteval_t val)",
        "pmd_t make_pmd(pmdval_t val)",
        "pgd_t make_pgd(pgdval_t val)",
        "void set_lazy_mode(enum paravirt_lazy_mode mode)",
        "void cpu_lazy_mode_enter(void)",
        "void cpu_lazy_mode_leave(void)",
        "void mmu_lazy_mode_enter(void)",
        "void mmu_lazy_mode_leave(void)",
    ],
}

_IRQ_STATE = [
    "unsigned long save_fl(void)",
    "void restore_fl(unsigned long flags)",
    "void irq_disable(void)",
    "void irq_enable(void)",
]

_JUMPS = [
    "void irq_enable_sysexit(void)",
    "void iret(void)",
]


def _ops() -> Iterator[Op]:
    for group, declarations in (*_DATA.items(), *_FUNCTIONS.items()):
        for text in declarations:
            yield declare(group, _HEADER, text, Convention.REGPARM3)
    for text in _IRQ_STATE:
        # Their sites save ecx and edx themselves, so a replacement may destroy eax only.
        yield declare("irq", _HEADER, text, Convention.REGPARM3, Clobber.EAX)
    for text in _JUMPS:
        yield declare("cpu", _HEADER, text, Convention.JUMP, Clobber.NONE)


OPS: Mapping[str, Op] = {op.name: op for op in _ops()}
