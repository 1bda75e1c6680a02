"""The tables of Linux 2.6.23 and 2.6.24 (i386): their ops in order.

Where the struct leaves an argument unnamed the name is that of the header's own inline wrapper. The struct
declares the value of write_msr as one u64 and read_pmc without argument, but the wrappers pass ``low, high``
and ``counter``, and so do these declarations: the registers are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from pvops_core.ops.declare import declare
from pvops_core.ops.model import Clobber, Convention, Op

_HEADER: Final = "include/asm-i386/paravirt.h (2.6.23, ab144f5ec64c); include/asm-x86/paravirt.h (2.6.24)"

_SPLIT: Final = {
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
        "unsigned long get_debugreg(int regno)",
        "void set_debugreg(int regno, unsigned long value)",
        "void clts(void)",
        "unsigned long read_cr0(void)",
        "void write_cr0(unsigned long cr0)",
        "unsigned long read_cr4_safe(void)",
        "unsigned long read_cr4(void)",
        "void write_cr4(unsigned long cr4)",
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
        "void wbinvd(void)",
        "void io_delay(void)",
        "void cpuid(unsigned int *eax, unsigned int *ebx, unsigned int *ecx, unsigned int *edx)",
        "u64 read_msr(unsigned int msr, int *err)",
        "int write_msr(unsigned int msr, unsigned int low, unsigned int high)",
        "u64 read_tsc(void)",
        "u64 read_pmc(int counter)",
        "void irq_enable_sysexit(void)",
        "void iret(void)",
        "void cpu_lazy_mode_enter(void)",
        "void cpu_lazy_mode_leave(void)",
    ],
    "irq": [
        "void init_IRQ(void)",
        "unsigned long save_fl(void)",
        "void restore_fl(unsigned long flags)",
        "void irq_disable(void)",
        "void irq_enable(void)",
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
        "void mmu_lazy_mode_enter(void)",
        "void mmu_lazy_mode_leave(void)",
    ],
}
"""In the order of 2.6.24's structs, with every option."""

_SEED: Final = {
    "info": [
        "unsigned int kernel_rpl",
        "int shared_kernel_pmd",
        "int paravirt_enabled",
        "const char *name",
    ],
    "mmu": [
        "void set_lazy_mode(enum paravirt_lazy_mode mode)",
    ],
}
"""What 2.6.23 has besides; the data moved to pv_info, which sites do not call through."""

_IRQ_STATE: Final = frozenset({"save_fl", "restore_fl", "irq_disable", "irq_enable"})
"""Their sites save ecx and edx themselves (asm-i386/paravirt.h, CLBR_EAX), so a replacement may destroy eax only."""

_JUMPS: Final = frozenset({"irq_enable_sysexit", "iret"})

_PAE_ONLY: Final = frozenset(
    {"set_pte_atomic", "set_pte_present", "set_pud", "pte_clear", "pmd_clear", "pmd_val", "make_pmd"}
)
"""Under CONFIG_X86_PAE."""


def _ops(groups: Mapping[str, list[str]]) -> Iterator[Op]:
    for group, declarations in groups.items():
        for text in declarations:
            op = declare(group, _HEADER, text, Convention.REGPARM3)
            if op.name in _IRQ_STATE:
                yield declare(group, _HEADER, text, Convention.REGPARM3, Clobber.EAX)
            elif op.name in _JUMPS:
                yield declare(group, _HEADER, text, Convention.JUMP, Clobber.NONE)
            else:
                yield op


_SPLIT_OPS: Final[Mapping[str, Op]] = {op.name: op for op in _ops(_SPLIT)}
OPS: Final[Mapping[str, Op]] = {**_SPLIT_OPS, **{op.name: op for op in _ops(_SEED)}}
"""Those of both."""

_SEED_ORDER: Final = """
    kernel_rpl shared_kernel_pmd paravirt_enabled name patch arch_setup memory_setup post_allocator_init
    init_IRQ time_init pagetable_setup_start pagetable_setup_done banner get_wallclock set_wallclock cpuid
    get_debugreg set_debugreg clts read_cr0 write_cr0 read_cr2 write_cr2 read_cr3 write_cr3 read_cr4_safe
    read_cr4 write_cr4 save_fl restore_fl irq_disable irq_enable safe_halt halt wbinvd read_msr write_msr
    read_tsc read_pmc sched_clock get_cpu_khz load_tr_desc load_gdt load_idt store_gdt store_idt set_ldt
    store_tr load_tls write_ldt_entry write_gdt_entry write_idt_entry load_esp0 set_iopl_mask io_delay
    activate_mm dup_mmap exit_mmap
    apic_write apic_write_atomic apic_read setup_boot_clock setup_secondary_clock startup_ipi_hook
    flush_tlb_user flush_tlb_kernel flush_tlb_single flush_tlb_others alloc_pt alloc_pd alloc_pd_clone
    release_pt release_pd set_pte set_pte_at set_pmd pte_update pte_update_defer
    set_pte_atomic set_pte_present set_pud pte_clear pmd_clear pte_val pmd_val pgd_val make_pte make_pmd make_pgd
    set_lazy_mode irq_enable_sysexit iret
"""


def seed(*, lapic: bool, pae: bool) -> list[Op]:
    """The ops of 2.6.23 in the order of its one struct, by what CONFIG_X86_LOCAL_APIC and CONFIG_X86_PAE say."""
    return [OPS[name] for name in _SEED_ORDER.split() if _has(OPS[name], lapic=lapic, pae=pae)]


def split(*, lapic: bool, pae: bool) -> list[Op]:
    """The ops of 2.6.24 in the order of its structs, likewise."""
    return [op for op in _SPLIT_OPS.values() if _has(op, lapic=lapic, pae=pae)]


def _has(op: Op, *, lapic: bool, pae: bool) -> bool:
    return (lapic or op.group != "apic") and (pae or op.name not in _PAE_ONLY)
