"""The ops of kernels from 2.6.24 to 5.12, whose images have no type information: which there were, in what order.

A group's members never changed their order while it was a variable of its own, so one list of all that ever were, in
that order, has every kernel's group in it, with gaps. Sources: arch/x86/include/asm/paravirt_types.h of 2.6.32, 2.6.35,
2.6.39, 3.2, 3.6, 3.11, 4.9, 4.18 and 5.2; include/asm-x86/paravirt.h of 2.6.24 and 2.6.27.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from pvops_core.ops import linux_2_6, linux_6_1
from pvops_core.ops.declare import declare
from pvops_core.ops.model import Clobber, Convention, Op

if TYPE_CHECKING:
    from pvops_core.kinds import MachineKind

GROUPS: Final = ("pv_init_ops", "pv_time_ops", "pv_cpu_ops", "pv_irq_ops", "pv_apic_ops", "pv_mmu_ops", "pv_lock_ops")
"""The variables of the groups, in the order in which their members are numbered through; ``pv_ops`` since 4.20."""

_TAIL: Final = """
    pte_val pte_flags? make_pte pgd_val make_pgd pte_val? pmd_val? pgd_val? make_pte? make_pmd? make_pgd?
    set_pte_atomic/32? set_pte_present/32? pte_clear/32? pmd_clear/32? set_pud? pmd_val? make_pmd?
    pud_val/64? make_pud/64? set_p4d/64? p4d_val/64?? make_p4d/64?? set_pgd/64?? kmap_atomic_pte/32??
    lazy_mode.enter lazy_mode.leave lazy_mode.flush? set_fixmap
"""
_LOCKS: Final = """
    spin_is_locked spin_is_contended spin_lock spin_lock_flags spin_trylock spin_unlock
    lock_spinning? unlock_kick? queued_spin_lock_slowpath queued_spin_unlock wait kick vcpu_is_preempted
"""
_CPU: Final = """
    load_tr_desc load_gdt load_idt store_gdt? store_idt? set_ldt store_tr load_tls load_gs_index/64 write_ldt_entry
    write_gdt_entry write_idt_entry alloc_ldt free_ldt load_esp0/32? load_sp0 set_iopl_mask set_io_bitmap?
    invalidate_io_bitmap? update_io_bitmap? wbinvd io_delay? cpuid read_msr rdmsr_regs? read_msr_amd? write_msr
    wrmsr_regs? read_msr_safe write_msr_safe read_tsc read_pmc read_tscp? irq_enable_sysexit? usergs_sysret64
    usergs_sysret32? iret swapgs lazy_mode.enter lazy_mode.leave start_context_switch end_context_switch
"""
_IRQ: Final = "save_fl restore_fl irq_disable irq_enable safe_halt halt adjust_exception_frame/64?"
_SPACES: Final = """
    pgd_alloc pgd_free alloc_pte alloc_pmd alloc_pmd_clone? alloc_pud alloc_p4d? release_pte release_pmd release_pud
    release_p4d? set_pte set_pte_at? set_pmd set_pmd_at? pte_update? pte_update_defer? pmd_update? pmd_update_defer?
    ptep_modify_prot_start ptep_modify_prot_commit
"""

MEMBERS: Final[Mapping[str, str]] = {
    "pv_init_ops": "patch arch_setup memory_setup post_allocator_init banner",
    "pv_time_ops": "time_init get_wallclock set_wallclock sched_clock steal_clock get_cpu_khz? get_tsc_khz?",
    "pv_cpu_ops": f"""
        get_debugreg set_debugreg clts read_cr0 write_cr0 read_cr4_safe read_cr4 write_cr4 read_cr8/64 write_cr8/64
        {_CPU}
    """,
    "pv_irq_ops": f"init_IRQ? {_IRQ}",
    "pv_apic_ops": """
        apic_write? apic_write_atomic? apic_read? setup_boot_clock? setup_secondary_clock? startup_ipi_hook
    """,
    "pv_mmu_ops": f"""
        pagetable_setup_start pagetable_setup_done read_cr2 write_cr2 read_cr3 write_cr3 activate_mm dup_mmap exit_mmap
        flush_tlb_user flush_tlb_kernel flush_tlb_single? flush_tlb_one_user? flush_tlb_others tlb_remove_table?
        alloc_pt? alloc_pd? alloc_pd_clone? release_pt? release_pd? {_SPACES} {_TAIL}
    """,
    "pv_lock_ops": _LOCKS,
}
"""The members of each group: /64 and /32 for those of one width, ? and ?? for those likely to be missing."""

_ONE: Final = {
    "init": "patch",
    "time": "sched_clock steal_clock",
    "cpu": f"""
        io_delay get_debugreg set_debugreg read_cr0 write_cr0 write_cr4 read_cr8/64? write_cr8/64?
        {_CPU.replace("lazy_mode.enter lazy_mode.leave", "")}
    """,
    "irq": _IRQ,
    "mmu": f"""
        flush_tlb_user flush_tlb_kernel flush_tlb_one_user flush_tlb_others? flush_tlb_multi? tlb_remove_table?
        exit_mmap notify_page_enc_status_changed? read_cr2 write_cr2
        read_cr3 write_cr3 activate_mm dup_mmap {_SPACES} {_TAIL}
    """,
    "lock": _LOCKS,
}

ONE_TABLE: Final[Mapping[str, str]] = {
    "pv_ops": " ".join(f"{group}.{name}" for group, names in _ONE.items() for name in names.split())
}
"""Likewise from 4.20 to 5.12, in one variable, by the kernel's paths."""

MARKS: Final[Mapping[str, tuple[str, ...]]] = {
    "paravirt_start_context_switch": ("pv_cpu_ops.start_context_switch", "pv_cpu_ops.end_context_switch"),
    "paravirt_enter_lazy_cpu": ("pv_cpu_ops.lazy_mode.enter", "pv_cpu_ops.lazy_mode.leave"),
    "native_steal_clock": ("pv_time_ops.steal_clock",),
    "native_calculate_cpu_khz": ("pv_time_ops.get_cpu_khz",),
    "native_set_pmd_at": ("pv_mmu_ops.set_pmd_at", "pv_mmu_ops.pmd_update", "pv_mmu_ops.pmd_update_defer"),
}
"""Functions that every kernel with these ops has; their slots may hold nothing that says which they are."""

NEVER_BOTH: Final = (frozenset({"alloc_pmd_clone"}), frozenset({"alloc_p4d", "release_p4d"}))
"""Ops that a kernel has of one age or of the other, or not at all: the first went in 2.6.38, the rest came in 4.12."""

JUMPS: Final = frozenset({"iret", "irq_enable_sysexit", "usergs_sysret64", "usergs_sysret32"})
"""Ops that are jumped to."""

_HOOK_NAMES: Final = {
    ("mmu", "lazy_mode.enter"): "mmu_lazy_mode_enter",
    ("mmu", "lazy_mode.leave"): "mmu_lazy_mode_leave",
    ("mmu", "lazy_mode.flush"): "mmu_lazy_mode_flush",
    ("cpu", "lazy_mode.enter"): "cpu_lazy_mode_enter",
    ("cpu", "lazy_mode.leave"): "cpu_lazy_mode_leave",
    ("lock", "wait"): "lock_wait",
    ("lock", "kick"): "lock_kick",
}

_OWN: Final = (
    "unsigned long long steal_clock(int cpu_nr)",
    "unsigned long get_tsc_khz(void)",
    "unsigned long read_cr8(void)",
    "void write_cr8(unsigned long cr8)",
    "void load_sp0(struct tss_struct *tss, struct thread_struct *thread)",
    "void set_iopl_mask(unsigned int mask)",
    "void set_io_bitmap(struct thread_struct *thread, unsigned long bytes_updated)",
    "int rdmsr_regs(u32 *regs)",
    "int wrmsr_regs(u32 *regs)",
    "u64 read_msr_amd(unsigned int msr, int *err)",
    "unsigned long long read_tscp(unsigned int *aux)",
    "void usergs_sysret64(void)",
    "void usergs_sysret32(void)",
    "void swapgs(void)",
    "void adjust_exception_frame(void)",
    "void alloc_pmd_clone(unsigned long pfn, unsigned long clonepfn, unsigned long start, unsigned long count)",
    "void set_pmd_at(struct mm_struct *mm, unsigned long addr, pmd_t *pmdp, pmd_t pmdval)",
    "void pmd_update(struct mm_struct *mm, unsigned long addr, pmd_t *pmdp)",
    "void pmd_update_defer(struct mm_struct *mm, unsigned long addr, pmd_t *pmdp)",
    "pteval_t pte_flags(pte_t pte)",
    "void *kmap_atomic_pte(struct page *page, unsigned int type)",
    "int spin_is_locked(struct arch_spinlock *lock)",
    "int spin_is_contended(struct arch_spinlock *lock)",
    "void spin_lock(struct arch_spinlock *lock)",
    "void spin_lock_flags(struct arch_spinlock *lock, unsigned long flags)",
    "int spin_trylock(struct arch_spinlock *lock)",
    "void spin_unlock(struct arch_spinlock *lock)",
    "void lock_spinning(struct arch_spinlock *lock, u32 ticket)",
    "void unlock_kick(struct arch_spinlock *lock, u32 ticket)",
)
"""Prototypes of ops that neither 2.6.24 nor 6.1 has."""

_OWN_BY_NAME: Final = {text.partition("(")[0].split()[-1].lstrip("*"): text for text in _OWN}

_BY_PATH: Final = {
    "init.patch": "unsigned int patch(u8 type, void *insnbuf, unsigned long addr, unsigned int len)",
}
"""Prototypes that are not as before in ``pv_ops``: 27876f3882fd (4.20) took the clobbers from ``patch``."""

_SOURCE: Final = "arch/x86/include/asm/paravirt_types.h (2.6.25 to 5.12)"


def members(names: str, kind: MachineKind) -> list[tuple[str, int]]:
    """A group's members on machines of a width, in order: name, and how likely it is to be missing, 0 to 2."""
    found = []
    for text in names.split():
        name, _, width = text.rstrip("?").partition("/")
        if width in {"", str(kind.bits)}:
            found.append((name, text.count("?")))
    return found


def op_of(path: str, kind: MachineKind, convention: Convention) -> Op:
    """The op of a path such as ``pv_mmu_ops.set_pte`` or ``mmu.set_pte``, called as a convention says.

    Its prototype is the catalogue's for the width, or one of :data:`_OWN`; of an op that is in neither nothing but the
    name is known.
    """
    group, _, member = path.partition(".")
    if not member:  # a variable of its own, pv_mmu_lazy_mode_flush
        member = path.removeprefix("pv_")
        group = member.partition("_")[0]
    group = group.removeprefix("pv_").removesuffix("_ops")
    name = _HOOK_NAMES.get((group, member), member.rpartition(".")[2])
    plain = Convention.SYSV if kind.bits == 64 else Convention.REGPARM3
    older, later = linux_2_6.OPS, linux_6_1.ops(plain)
    if path in _BY_PATH:
        older = later = {name: declare(group, _SOURCE, _BY_PATH[path], plain)}
    for known in (older, later) if kind.bits == 32 else (later, older):
        if name in known and name not in _OWN_BY_NAME:
            found = known[name]
            break
    else:
        found = declare(group, _SOURCE, _OWN_BY_NAME.get(name, f"void {name}(void)"), plain)
    clobbers = Clobber.EAX if group == "irq" else Clobber.ANY
    return Op(name, group, found.result, found.args, convention, clobbers, _SOURCE)
