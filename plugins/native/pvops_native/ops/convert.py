"""Entries and their values: on bare metal a stored entry is the value itself.

Source: native_pte_val and its neighbours (asm/pgtable-2level.h, pgtable-3level.h, 2.6.23) and _paravirt_ident_64 (6.1).
"""

# ruff: noqa: ARG002  # a hook names the vCPU first, needed or not

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs import hookimpl
from pvops_native.ops.base import NativeGroup

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu


class ConvertOps(NativeGroup):
    """mmu.*_val and mmu.make_*: as wide as a page-table entry."""

    @hookimpl
    def pte_val(self, cpu: Vcpu, pte: int) -> int:
        """Pteval_t of a pte_t."""
        return pte

    @hookimpl
    def pmd_val(self, cpu: Vcpu, pmd: int) -> int:
        """Pmdval_t of a pmd_t."""
        return pmd

    @hookimpl
    def pud_val(self, cpu: Vcpu, pud: int) -> int:
        """Pudval_t of a pud_t."""
        return pud

    @hookimpl
    def p4d_val(self, cpu: Vcpu, p4d: int) -> int:
        """P4dval_t of a p4d_t."""
        return p4d

    @hookimpl
    def pgd_val(self, cpu: Vcpu, pgd: int) -> int:
        """Pgdval_t of a pgd_t."""
        return pgd

    @hookimpl
    def make_pte(self, cpu: Vcpu, val: int) -> int:
        """Pte_t of a pteval_t."""
        return val

    @hookimpl
    def make_pmd(self, cpu: Vcpu, val: int) -> int:
        """Pmd_t of a pmdval_t."""
        return val

    @hookimpl
    def make_pud(self, cpu: Vcpu, val: int) -> int:
        """Pud_t of a pudval_t."""
        return val

    @hookimpl
    def make_p4d(self, cpu: Vcpu, val: int) -> int:
        """P4d_t of a p4dval_t."""
        return val

    @hookimpl
    def make_pgd(self, cpu: Vcpu, val: int) -> int:
        """Pgd_t of a pgdval_t."""
        return val
