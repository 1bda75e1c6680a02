"""Hooks of struct pv_mmu_ops that act on address spaces: control registers, TLB, life of tables and batches.

Reading, making and writing entries is in ``pagetable``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs.markers import hookspec

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu


@hookspec(firstresult=True)
def read_cr2(cpu: Vcpu) -> int | None:
    """Read the address of the last page fault; called first thing in the page-fault handler. Callee-save since 5.3.

    Returns:
        unsigned long: the linear address.
    """


@hookspec(firstresult=True)
def write_cr2(cpu: Vcpu, cr2: int) -> None:
    """Write CR2; called when processor state is restored after a suspend.

    Args:
        cr2: unsigned long; the linear address.
    """


@hookspec(firstresult=True)
def read_cr3(cpu: Vcpu) -> int | None:
    """Read the page-table base.

    Returns:
        unsigned long: what write_cr3 was last given: a guest-physical address with flags, also where the real
        CR3 holds another.
    """


@hookspec(firstresult=True)
def write_cr3(cpu: Vcpu, cr3: int) -> None:
    """Load a page-table base, at every switch of address space and at boot for the kernel's own table.

    Flushes TLB entries that are not global.

    Args:
        cr3: unsigned long; guest-physical address of the top-level table in bytes (pseudo-physical on Xen),
            with flags below bit 12.

    Raises:
        GuestFault: #GP for a base that the platform refuses.
    """


@hookspec(firstresult=True)
def activate_mm(cpu: Vcpu, prev: int, next: int) -> None:
    """Called when an address space is used for the first time, before the switch to it: Xen pins its tables here.

    Args:
        prev: struct mm_struct *; guest-virtual address of the space that is left.
        next: struct mm_struct *; guest-virtual address of the space that is entered.
    """


@hookspec(firstresult=True)
def dup_mmap(cpu: Vcpu, oldmm: int, mm: int) -> None:
    """Called when fork has copied an address space: Xen pins the copy here.

    Args:
        oldmm: struct mm_struct *; guest-virtual address of the parent's space.
        mm: struct mm_struct *; guest-virtual address of the copy.
    """


@hookspec(firstresult=True)
def enter_mmap(cpu: Vcpu, mm: int) -> None:
    """Called when an address space is first used, and when fork has copied one: Xen pins its tables here (6.12).

    Takes the place of ``activate_mm`` and ``dup_mmap``.

    Args:
        mm: struct mm_struct *; guest-virtual address of the space that is entered.
    """


@hookspec(firstresult=True)
def exit_mmap(cpu: Vcpu, mm: int) -> None:
    """Called before an address space is torn down: Xen unpins its tables here.

    Args:
        mm: struct mm_struct *; guest-virtual address of the space.
    """


@hookspec(firstresult=True)
def flush_tlb_user(cpu: Vcpu) -> None:
    """Flush this CPU's TLB entries that are not global.

    Native: reload CR3.
    """


@hookspec(firstresult=True)
def flush_tlb_kernel(cpu: Vcpu) -> None:
    """Flush all of this CPU's TLB entries, global ones too.

    Native: toggle CR4.PGE.
    """


@hookspec(firstresult=True)
def flush_tlb_single(cpu: Vcpu, addr: int) -> None:
    """Flush one page's TLB entry on this CPU (2.6).

    Args:
        addr: unsigned long; a linear address in the page.

    Native: invlpg.
    """


@hookspec(firstresult=True)
def flush_tlb_one_user(cpu: Vcpu, addr: int) -> None:
    """Flush one user page's TLB entry on this CPU (6.1).

    Args:
        addr: unsigned long; a linear address in the page.

    Native: invlpg.
    """


@hookspec(firstresult=True)
def flush_tlb_others(cpu: Vcpu, cpus: int, mm: int, va: int) -> None:
    """Flush an address space, or one page of it, on other CPUs; returns when they have done it (2.6).

    Args:
        cpus: const cpumask_t *; guest-virtual address of a bit mask of CPUs, an array of longs; never this
            CPU.
        mm: struct mm_struct *; guest-virtual address of the space.
        va: unsigned long; a linear address in the page, or all ones for the whole space.
    """


@hookspec(firstresult=True)
def flush_tlb_multi(cpu: Vcpu, cpus: int, info: int) -> None:
    """Flush a range of an address space on several CPUs; returns when they have done it (6.1).

    Args:
        cpus: const struct cpumask *; guest-virtual address of a bit mask of CPUs, an array of longs; this CPU
            may be among them.
        info: const struct flush_tlb_info *; guest-virtual address of mm (pointer), start, end (unsigned long,
            bytes), …

    Source: asm/tlbflush.h.
    """


@hookspec(firstresult=True)
def tlb_remove_table(cpu: Vcpu, tlb: int, table: int) -> None:
    """Free a page table once no CPU can walk it any more.

    Args:
        tlb: struct mmu_gather *; guest-virtual address of the batch that it joins.
        table: void *; guest-virtual address of the table's struct page.
    """


@hookspec(firstresult=True)
def notify_page_enc_status_changed(cpu: Vcpu, pfn: int, npages: int, enc: int) -> None:
    """Called when pages of an encrypted guest were made private or shared.

    Args:
        pfn: unsigned long; number of the first page frame.
        npages: int; number of pages.
        enc: bool; 1 if they are now encrypted.
    """


@hookspec(firstresult=True)
def pgd_alloc(cpu: Vcpu, mm: int) -> int | None:
    """Called when a top-level table was allocated and its kernel part filled: Xen makes the user-mode table here.

    Args:
        mm: struct mm_struct *; guest-virtual address of the space, whose pgd is set.

    Returns:
        int: 0, or -ENOMEM, with which the space is not made.
    """


@hookspec(firstresult=True)
def pgd_free(cpu: Vcpu, mm: int, pgd: int) -> None:
    """Called before a top-level table is freed.

    Args:
        mm: struct mm_struct *; guest-virtual address of the space.
        pgd: pgd_t *; guest-virtual address of the table.
    """


@hookspec(firstresult=True)
def alloc_pt(cpu: Vcpu, mm: int, pfn: int) -> None:
    """Called before a page becomes a page table, not yet linked: Xen makes it read-only (2.6).

    Args:
        mm: struct mm_struct *; guest-virtual address of the space.
        pfn: u32; number of the page frame.
    """


@hookspec(firstresult=True)
def alloc_pd(cpu: Vcpu, pfn: int) -> None:
    """Called before a page becomes a page directory (2.6).

    Args:
        pfn: u32; number of the page frame.
    """


@hookspec(firstresult=True)
def alloc_pd_clone(cpu: Vcpu, pfn: int, clonepfn: int, start: int, count: int) -> None:
    """Called before a page becomes a page directory that begins as a copy of part of another (2.6).

    Args:
        pfn: u32; number of the page frame.
        clonepfn: u32; number of the frame copied from.
        start: u32; first entry copied.
        count: u32; number of entries copied.

    VMI uses it.
    """


@hookspec(firstresult=True)
def release_pt(cpu: Vcpu, pfn: int) -> None:
    """Called when a page is no longer a page table: Xen makes it read-write (2.6).

    Args:
        pfn: u32; number of the page frame.
    """


@hookspec(firstresult=True)
def release_pd(cpu: Vcpu, pfn: int) -> None:
    """Called when a page is no longer a page directory (2.6).

    Args:
        pfn: u32; number of the page frame.
    """


@hookspec(firstresult=True)
def alloc_pte(cpu: Vcpu, mm: int, pfn: int) -> None:
    """Called before a page becomes a level-1 table, not yet linked: Xen makes it read-only and pins it (6.1).

    Args:
        mm: struct mm_struct *; guest-virtual address of the space.
        pfn: unsigned long; number of the page frame.
    """


@hookspec(firstresult=True)
def alloc_pmd(cpu: Vcpu, mm: int, pfn: int) -> None:
    """Called before a page becomes a level-2 table, not yet linked (6.1).

    Args:
        mm: struct mm_struct *; guest-virtual address of the space.
        pfn: unsigned long; number of the page frame.
    """


@hookspec(firstresult=True)
def alloc_pud(cpu: Vcpu, mm: int, pfn: int) -> None:
    """Called before a page becomes a level-3 table, not yet linked (6.1).

    Args:
        mm: struct mm_struct *; guest-virtual address of the space.
        pfn: unsigned long; number of the page frame.
    """


@hookspec(firstresult=True)
def alloc_p4d(cpu: Vcpu, mm: int, pfn: int) -> None:
    """Called before a page becomes a level-4 table under a fifth level, not yet linked (6.1).

    Args:
        mm: struct mm_struct *; guest-virtual address of the space.
        pfn: unsigned long; number of the page frame.
    """


@hookspec(firstresult=True)
def release_pte(cpu: Vcpu, pfn: int) -> None:
    """Called when a page is no longer a level-1 table: Xen unpins it and makes it read-write (6.1).

    Args:
        pfn: unsigned long; number of the page frame.
    """


@hookspec(firstresult=True)
def release_pmd(cpu: Vcpu, pfn: int) -> None:
    """Called when a page is no longer a level-2 table (6.1).

    Args:
        pfn: unsigned long; number of the page frame.
    """


@hookspec(firstresult=True)
def release_pud(cpu: Vcpu, pfn: int) -> None:
    """Called when a page is no longer a level-3 table (6.1).

    Args:
        pfn: unsigned long; number of the page frame.
    """


@hookspec(firstresult=True)
def release_p4d(cpu: Vcpu, pfn: int) -> None:
    """Called when a page is no longer a level-4 table under a fifth level (6.1).

    Args:
        pfn: unsigned long; number of the page frame.
    """


@hookspec(firstresult=True)
def set_lazy_mode(cpu: Vcpu, mode: int) -> None:
    """Enter, leave or flush a batch of updates (2.6.23).

    Args:
        mode: enum paravirt_lazy_mode; 0 NONE ends a batch, 1 MMU and 2 CPU begin one, 3 FLUSH brings it into
            effect and goes on.
    """


@hookspec(firstresult=True)
def mmu_lazy_mode_enter(cpu: Vcpu) -> None:
    """Begin a run of page-table updates, which may be batched: no one relies on them until mmu_lazy_mode_leave."""


@hookspec(firstresult=True)
def mmu_lazy_mode_leave(cpu: Vcpu) -> None:
    """End a run of page-table updates: all of them take effect before this returns."""


@hookspec(firstresult=True)
def mmu_lazy_mode_flush(cpu: Vcpu) -> None:
    """Bring batched page-table updates into effect and go on batching, if a run is open (6.1)."""


@hookspec(firstresult=True)
def set_fixmap(cpu: Vcpu, idx: int, phys: int, flags: int) -> None:
    """Map a physical page at a fixed virtual address.

    Args:
        idx: unsigned int; enum fixed_addresses: the page's number, counted down from the top of the fixed
            map.
        phys: phys_addr_t; guest-physical address in bytes; on Xen the number of a machine frame for some
            indices.
        flags: pgprot_t; page protection bits; 0 unmaps.
    """
