"""Hooks of struct pv_mmu_ops that act on single page-table entries.

An entry is 4 bytes on i386 and 8 with PAE and on x86_64. What lies in memory may differ from what the kernel
means: on Xen it holds machine frames, and ``pte_val`` and ``make_pte`` and their like translate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs.markers import hookspec

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu


@hookspec(firstresult=True)
def set_pte(cpu: Vcpu, ptep: int, pteval: int) -> None:
    """Write a level-1 entry, of a table that may be in use.

    Args:
        ptep: pte_t *; guest-virtual address of the entry.
        pteval: pte_t; the entry as it is to be stored.
    """


@hookspec(firstresult=True)
def set_pte_at(cpu: Vcpu, mm: int, addr: int, ptep: int, pteval: int) -> None:
    """Write the level-1 entry of a known address and address space (2.6).

    Args:
        mm: struct mm_struct *; guest-virtual address of the space.
        addr: unsigned long; linear address that the entry maps.
        ptep: pte_t *; guest-virtual address of the entry.
        pteval: pte_t; the entry as it is to be stored.
    """


@hookspec(firstresult=True)
def set_pmd(cpu: Vcpu, pmdp: int, pmdval: int) -> None:
    """Write a level-2 entry (on i386 without PAE: the top level).

    Args:
        pmdp: pmd_t *; guest-virtual address of the entry.
        pmdval: pmd_t; the entry as it is to be stored.
    """


@hookspec(firstresult=True)
def set_pud(cpu: Vcpu, pudp: int, pudval: int) -> None:
    """Write a level-3 entry (with PAE: the page-directory-pointer table, followed by a TLB flush).

    Args:
        pudp: pud_t *; guest-virtual address of the entry.
        pudval: pud_t; the entry as it is to be stored.
    """


@hookspec(firstresult=True)
def set_p4d(cpu: Vcpu, p4dp: int, p4dval: int) -> None:
    """Write a level-4 entry.

    Args:
        p4dp: p4d_t *; guest-virtual address of the entry.
        p4dval: p4d_t; the entry as it is to be stored.
    """


@hookspec(firstresult=True)
def set_pgd(cpu: Vcpu, pgdp: int, pgdval: int) -> None:
    """Write a level-5 entry; with four levels nothing calls it.

    Args:
        pgdp: pgd_t *; guest-virtual address of the entry.
        pgdval: pgd_t; the entry as it is to be stored.
    """


@hookspec(firstresult=True)
def pte_update(cpu: Vcpu, mm: int, addr: int, ptep: int) -> None:
    """Called when an entry was changed in place by an atomic instruction (2.6).

    Args:
        mm: struct mm_struct *; guest-virtual address of the space.
        addr: unsigned long; linear address that the entry maps.
        ptep: pte_t *; guest-virtual address of the entry.
    """


@hookspec(firstresult=True)
def pte_update_defer(cpu: Vcpu, mm: int, addr: int, ptep: int) -> None:
    """Called when an entry was changed in place and a TLB flush will follow before anyone relies on it (2.6).

    Args:
        mm: struct mm_struct *; guest-virtual address of the space.
        addr: unsigned long; linear address that the entry maps.
        ptep: pte_t *; guest-virtual address of the entry.
    """


@hookspec(firstresult=True)
def set_pte_atomic(cpu: Vcpu, ptep: int, pteval: int) -> None:
    """Write an entry that is in use, so that no CPU ever sees half of it (2.6 PAE).

    Args:
        ptep: pte_t *; guest-virtual address of the entry.
        pteval: pte_t; the entry as it is to be stored.
    """


@hookspec(firstresult=True)
def set_pte_present(cpu: Vcpu, mm: int, addr: int, ptep: int, pte: int) -> None:
    """Write an entry that may be present, passing through not-present so that no CPU sees a mix (2.6 PAE).

    Args:
        mm: struct mm_struct *; guest-virtual address of the space.
        addr: unsigned long; linear address that the entry maps.
        ptep: pte_t *; guest-virtual address of the entry.
        pte: pte_t; the entry as it is to be stored.
    """


@hookspec(firstresult=True)
def pte_clear(cpu: Vcpu, mm: int, addr: int, ptep: int) -> None:
    """Clear a level-1 entry, low half first (2.6 PAE).

    Args:
        mm: struct mm_struct *; guest-virtual address of the space.
        addr: unsigned long; linear address that the entry maps.
        ptep: pte_t *; guest-virtual address of the entry.
    """


@hookspec(firstresult=True)
def pmd_clear(cpu: Vcpu, pmdp: int) -> None:
    """Clear a level-2 entry, low half first (2.6 PAE).

    Args:
        pmdp: pmd_t *; guest-virtual address of the entry.
    """


@hookspec(firstresult=True)
def ptep_modify_prot_start(cpu: Vcpu, vma: int, addr: int, ptep: int) -> int | None:
    """Read a user entry whose protection is about to change.

    The hardware's accessed and dirty bits must not be lost until ptep_modify_prot_commit.

    Args:
        vma: struct vm_area_struct *; guest-virtual address of the area.
        addr: unsigned long; linear address that the entry maps.
        ptep: pte_t *; guest-virtual address of the entry.

    Returns:
        pte_t: the entry as stored. Native clears it meanwhile, Xen leaves it.
    """


@hookspec(firstresult=True)
def ptep_modify_prot_commit(cpu: Vcpu, vma: int, addr: int, ptep: int, pte: int) -> None:
    """Write the entry that ptep_modify_prot_start read, keeping accessed and dirty bits set since.

    Args:
        vma: struct vm_area_struct *; guest-virtual address of the area.
        addr: unsigned long; linear address that the entry maps.
        ptep: pte_t *; guest-virtual address of the entry.
        pte: pte_t; the entry as it is to be stored.
    """


@hookspec(firstresult=True)
def pte_val(cpu: Vcpu, pte: int) -> int | None:
    """What the kernel should see of a level-1 entry as stored. Callee-save since 2.6.30.

    Xen turns its machine frame into a pseudo-physical one.

    Args:
        pte: pte_t; the entry as stored.

    Returns:
        pteval_t: the entry as the kernel means it.
    """


@hookspec(firstresult=True)
def make_pte(cpu: Vcpu, val: int) -> int | None:
    """The level-1 entry to store for what the kernel means. Callee-save since 2.6.30.

    Xen turns its pseudo-physical frame into a machine one.

    Args:
        val: pteval_t; the entry as the kernel means it.

    Returns:
        pte_t: the entry as it is to be stored.
    """


@hookspec(firstresult=True)
def pmd_val(cpu: Vcpu, pmd: int) -> int | None:
    """What the kernel should see of a level-2 entry as stored. Callee-save since 2.6.30.

    Xen turns its machine frame into a pseudo-physical one.

    Args:
        pmd: pmd_t; the entry as stored.

    Returns:
        pmdval_t: the entry as the kernel means it.
    """


@hookspec(firstresult=True)
def make_pmd(cpu: Vcpu, val: int) -> int | None:
    """The level-2 entry to store for what the kernel means. Callee-save since 2.6.30.

    Xen turns its pseudo-physical frame into a machine one.

    Args:
        val: pmdval_t; the entry as the kernel means it.

    Returns:
        pmd_t: the entry as it is to be stored.
    """


@hookspec(firstresult=True)
def pud_val(cpu: Vcpu, pud: int) -> int | None:
    """What the kernel should see of a level-3 entry as stored. Callee-save since 2.6.30.

    Xen turns its machine frame into a pseudo-physical one.

    Args:
        pud: pud_t; the entry as stored.

    Returns:
        pudval_t: the entry as the kernel means it.
    """


@hookspec(firstresult=True)
def make_pud(cpu: Vcpu, val: int) -> int | None:
    """The level-3 entry to store for what the kernel means. Callee-save since 2.6.30.

    Xen turns its pseudo-physical frame into a machine one.

    Args:
        val: pudval_t; the entry as the kernel means it.

    Returns:
        pud_t: the entry as it is to be stored.
    """


@hookspec(firstresult=True)
def p4d_val(cpu: Vcpu, p4d: int) -> int | None:
    """What the kernel should see of a level-4 entry as stored. Callee-save.

    Xen turns its machine frame into a pseudo-physical one.

    Args:
        p4d: p4d_t; the entry as stored.

    Returns:
        p4dval_t: the entry as the kernel means it.
    """


@hookspec(firstresult=True)
def make_p4d(cpu: Vcpu, val: int) -> int | None:
    """The level-4 entry to store for what the kernel means. Callee-save.

    Xen turns its pseudo-physical frame into a machine one.

    Args:
        val: p4dval_t; the entry as the kernel means it.

    Returns:
        p4d_t: the entry as it is to be stored.
    """


@hookspec(firstresult=True)
def pgd_val(cpu: Vcpu, pgd: int) -> int | None:
    """What the kernel should see of a top-level entry as stored. Callee-save since 2.6.30.

    Xen turns its machine frame into a pseudo-physical one.

    Args:
        pgd: pgd_t; the entry as stored.

    Returns:
        pgdval_t: the entry as the kernel means it.
    """


@hookspec(firstresult=True)
def make_pgd(cpu: Vcpu, val: int) -> int | None:
    """The top-level entry to store for what the kernel means. Callee-save since 2.6.30.

    Xen turns its pseudo-physical frame into a machine one.

    Args:
        val: pgdval_t; the entry as the kernel means it.

    Returns:
        pgd_t: the entry as it is to be stored.
    """
