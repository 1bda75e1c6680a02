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
        (
            "unsigned int kernel_rpl",
            "Privilege level that the kernel runs at: 0 on hardware, 1 under a ring-compressing hypervisor.",
        ),
        (
            "int shared_kernel_pmd",
            "PAE: whether all address spaces share the page directory of kernel space.",
        ),
        ("int paravirt_enabled", "Whether the kernel runs on anything but bare hardware."),
        ("const char *name", "Name of the backend, printed at boot."),
    ],
}

_FUNCTIONS = {
    "init": [
        (
            "unsigned int patch(u8 type, u16 clobbers, void *insnbuf, unsigned long addr, unsigned int len)",
            "Write the code that replaces a call site into a buffer.",
        ),
        ("void arch_setup(void)", "Set up what the platform needs early in setup_arch."),
        ("char *memory_setup(void)", "Fill the e820 map; gives the name of the map's source."),
        ("void post_allocator_init(void)", "Do what had to wait for the page allocator."),
        ("void banner(void)", "Print what the kernel runs on."),
    ],
    "time": [
        ("void time_init(void)", "Set up the boot CPU's clock."),
        ("unsigned long get_wallclock(void)", "Read the persistent clock, in seconds since 1970."),
        (
            "int set_wallclock(unsigned long nowtime)",
            "Set the persistent clock; 0, or -1 if it cannot be set.",
        ),
        ("unsigned long long sched_clock(void)", "Read the scheduler's clock, in nanoseconds."),
        ("unsigned long get_cpu_khz(void)", "Frequency of the time-stamp counter, in kHz."),
    ],
    "cpu": [
        (
            "void cpuid(unsigned int *eax, unsigned int *ebx, unsigned int *ecx, unsigned int *edx)",
            "Execute cpuid on the leaf in *eax and the sub-leaf in *ecx.",
        ),
        ("unsigned long get_debugreg(int regno)", "Read a debug register."),
        ("void set_debugreg(int regno, unsigned long value)", "Write a debug register."),
        ("void clts(void)", "Clear CR0.TS."),
        ("unsigned long read_cr0(void)", "Read CR0."),
        ("void write_cr0(unsigned long cr0)", "Write CR0."),
        ("unsigned long read_cr4_safe(void)", "Read CR4, or give 0 on a processor that has none."),
        ("unsigned long read_cr4(void)", "Read CR4."),
        ("void write_cr4(unsigned long cr4)", "Write CR4."),
        ("void wbinvd(void)", "Write back and invalidate the caches."),
        (
            "u64 read_msr(unsigned int msr, int *err)",
            "Read a model-specific register; *err becomes 0 or -EFAULT.",
        ),
        (
            "int write_msr(unsigned int msr, unsigned int low, unsigned int high)",
            "Write a model-specific register; 0 or -EFAULT.",
        ),
        ("u64 read_tsc(void)", "Read the time-stamp counter."),
        ("u64 read_pmc(int counter)", "Read a performance counter."),
        ("void load_tr_desc(void)", "Load the task register with the CPU's TSS."),
        ("void load_gdt(const struct Xgt_desc_struct *dtr)", "Load GDTR."),
        ("void load_idt(const struct Xgt_desc_struct *dtr)", "Load IDTR."),
        ("void store_gdt(struct Xgt_desc_struct *dtr)", "Store GDTR."),
        ("void store_idt(struct Xgt_desc_struct *dtr)", "Store IDTR."),
        ("void set_ldt(const void *desc, unsigned int entries)", "Make a table the LDT."),
        ("unsigned long store_tr(void)", "Read the task register."),
        (
            "void load_tls(struct thread_struct *t, unsigned int cpu_nr)",
            "Copy a thread's TLS descriptors into a CPU's GDT.",
        ),
        (
            "void write_ldt_entry(struct desc_struct *dt, int entrynum, u32 low, u32 high)",
            "Write a descriptor of an LDT.",
        ),
        (
            "void write_gdt_entry(struct desc_struct *dt, int entrynum, u32 low, u32 high)",
            "Write a descriptor of a GDT.",
        ),
        (
            "void write_idt_entry(struct desc_struct *dt, int entrynum, u32 low, u32 high)",
            "Write a gate of an IDT.",
        ),
        (
            "void load_esp0(struct tss_struct *tss, struct thread_struct *thread)",
            "Set the stack that traps from user mode start on.",
        ),
        ("void set_iopl_mask(unsigned int mask)", "Set the I/O privilege level of the current context."),
        ("void io_delay(void)", "Wait about a microsecond, as a write to port 0x80 does."),
    ],
    "irq": [
        ("void init_IRQ(void)", "Set up the interrupt controllers and vectors."),
        ("void safe_halt(void)", "Enable interrupts and wait for one, without a gap between."),
        ("void halt(void)", "Wait with interrupts as they are."),
    ],
    "apic": [
        ("void apic_write(unsigned long reg, unsigned long v)", "Write a local APIC register."),
        (
            "void apic_write_atomic(unsigned long reg, unsigned long v)",
            "Exchange a local APIC register, for processors with the Pentium erratum.",
        ),
        ("unsigned long apic_read(unsigned long reg)", "Read a local APIC register."),
        ("void setup_boot_clock(void)", "Start the boot CPU's local timer."),
        ("void setup_secondary_clock(void)", "Start a secondary CPU's local timer."),
        (
            "void startup_ipi_hook(int phys_apicid, unsigned long start_eip, unsigned long start_esp)",
            "Tell the platform where a CPU that is about to be started begins.",
        ),
    ],
    "mmu": [
        ("void pagetable_setup_start(pgd_t *pgd_base)", "Called before the kernel's page tables are set up."),
        ("void pagetable_setup_done(pgd_t *pgd_base)", "Called when the kernel's page tables are set up."),
        ("unsigned long read_cr2(void)", "Read the address of the last page fault."),
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
        ("void exit_mmap(struct mm_struct *mm)", "Called before an address space is torn down."),
        ("void flush_tlb_user(void)", "Flush the non-global TLB entries of this CPU."),
        ("void flush_tlb_kernel(void)", "Flush all TLB entries of this CPU, global ones too."),
        ("void flush_tlb_single(unsigned long addr)", "Flush one page's TLB entry on this CPU."),
        (
            "void flush_tlb_others(const cpumask_t *cpus, struct mm_struct *mm, unsigned long va)",
            "Flush an address space, or one page of it, on other CPUs.",
        ),
        ("void alloc_pt(struct mm_struct *mm, u32 pfn)", "Called before a page becomes a page table."),
        ("void alloc_pd(u32 pfn)", "Called before a page becomes a page directory."),
        (
            "void alloc_pd_clone(u32 pfn, u32 clonepfn, u32 start, u32 count)",
            "Called before a page that shares entries of another becomes a page directory.",
        ),
        ("void release_pt(u32 pfn)", "Called when a page is no longer a page table."),
        ("void release_pd(u32 pfn)", "Called when a page is no longer a page directory."),
        ("void set_pte(pte_t *ptep, pte_t pteval)", "Write a page-table entry."),
        (
            "void set_pte_at(struct mm_struct *mm, unsigned long addr, pte_t *ptep, pte_t pteval)",
            "Write the page-table entry of a known address and address space.",
        ),
        ("void set_pmd(pmd_t *pmdp, pmd_t pmdval)", "Write a page-directory entry."),
        (
            "void pte_update(struct mm_struct *mm, unsigned long addr, pte_t *ptep)",
            "Called when an entry was changed in place.",
        ),
        (
            "void pte_update_defer(struct mm_struct *mm, unsigned long addr, pte_t *ptep)",
            "Called when an entry was changed in place and a flush will follow.",
        ),
        (
            "void set_pte_atomic(pte_t *ptep, pte_t pteval)",
            "PAE: write an entry that is in use, never half of it.",
        ),
        (
            "void set_pte_present(struct mm_struct *mm, unsigned long addr, pte_t *ptep, pte_t pte)",
            "PAE: write an entry that may be present, passing through not-present.",
        ),
        (
            "void set_pud(pud_t *pudp, pud_t pudval)",
            "PAE: write an entry of the page-directory-pointer table.",
        ),
        (
            "void pte_clear(struct mm_struct *mm, unsigned long addr, pte_t *ptep)",
            "PAE: clear a page-table entry, low half first.",
        ),
        ("void pmd_clear(pmd_t *pmdp)", "PAE: clear a page-directory entry, low half first."),
        ("pteval_t pte_val(pte_t pte)", "What the kernel should see of a page-table entry as stored."),
        (
            "pmdval_t pmd_val(pmd_t pmd)",
            "PAE: what the kernel should see of a page-directory entry as stored.",
        ),
        ("pgdval_t pgd_val(pgd_t pgd)", "What the kernel should see of a top-level entry as stored."),
        ("pte_t make_pte(pteval_t val)", "The page-table entry to store for what the kernel means."),
        ("pmd_t make_pmd(pmdval_t val)", "PAE: the page-directory entry to store for what the kernel means."),
        ("pgd_t make_pgd(pgdval_t val)", "The top-level entry to store for what the kernel means."),
        (
            "void set_lazy_mode(enum paravirt_lazy_mode mode)",
            "2.6.23: enter, leave or flush a batch of updates.",
        ),
        ("void cpu_lazy_mode_enter(void)", "Begin a context switch, whose updates may be batched."),
        ("void cpu_lazy_mode_leave(void)", "End a context switch: batched updates take effect."),
        ("void mmu_lazy_mode_enter(void)", "Begin a run of page-table updates, which may be batched."),
        ("void mmu_lazy_mode_leave(void)", "End a run of page-table updates: they take effect."),
    ],
}

_IRQ_STATE = [
    ("unsigned long save_fl(void)", "Read the interrupt flag, as bit 9 of an EFLAGS image."),
    ("void restore_fl(unsigned long flags)", "Set the interrupt flag from bit 9 of an EFLAGS image."),
    ("void irq_disable(void)", "Disable interrupts."),
    ("void irq_enable(void)", "Enable interrupts."),
]

_JUMPS = [
    ("void irq_enable_sysexit(void)", "Enable interrupts and return to user mode by sysexit."),
    ("void iret(void)", "Return from an interrupt by the frame on the stack."),
]


def _ops() -> Iterator[Op]:
    for group, declarations in (*_DATA.items(), *_FUNCTIONS.items()):
        for text, doc in declarations:
            yield declare(group, _HEADER, text, doc, Convention.REGPARM3)
    for text, doc in _IRQ_STATE:
        # Their sites save ecx and edx themselves, so a replacement may destroy eax only.
        yield declare("irq", _HEADER, text, doc, Convention.REGPARM3, Clobber.EAX)
    for text, doc in _JUMPS:
        yield declare("cpu", _HEADER, text, doc, Convention.JUMP, Clobber.NONE)


OPS: Mapping[str, Op] = {op.name: op for op in _ops()}
