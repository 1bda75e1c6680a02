"""Page tables: the guest writes its own tables and tells the host, whose shadows follow.

Source: "Page Table Handling" in arch/x86/lguest/boot.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs import hookimpl
from pvops_lguest.host.abi import Call
from pvops_lguest.host.memory import PAGE_MASK
from pvops_lguest.ops.guest import GuestSide

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

FLUSH_USER, FLUSH_ALL = 0, 1


class MmuOps(GuestSide):
    """Ops that change what is mapped."""

    @hookimpl
    def read_cr3(self, cpu: Vcpu) -> int:
        """What was written last: the host's own holds a shadow."""
        del cpu
        return self._variables.cr3

    @hookimpl
    def write_cr3(self, cpu: Vcpu, cr3: int) -> None:
        """NEW_PGTABLE."""
        self.lazy_hcall(cpu, Call.NEW_PGTABLE, cr3)
        self._variables.cr3 = cr3

    @hookimpl
    def set_pte(self, cpu: Vcpu, ptep: int, pteval: int) -> None:
        """Write the entry; no one says which address it maps, so everything is flushed.

        Not before the kernel has its own page table: until then it fills tables that are not in use.
        """
        self.set_u32(cpu, ptep, pteval)
        # Before the first CR3 the kernel fills tables that nothing shadows; each call then would be a flush for
        # nothing.
        if self._variables.cr3:
            self.lazy_hcall(cpu, Call.FLUSH_TLB, FLUSH_ALL)

    @hookimpl
    def set_pte_at(self, cpu: Vcpu, mm: int, addr: int, ptep: int, pteval: int) -> None:
        """Write the entry and tell the host which one."""
        # The mm's, not the present one: fork writes into the child's tables.
        pgd = self.u32(cpu, mm + self.offset("mm.pgd"))
        self.set_u32(cpu, ptep, pteval)
        self.lazy_hcall(cpu, Call.SET_PTE, self.pa(pgd), addr, pteval)

    @hookimpl
    def set_pmd(self, cpu: Vcpu, pmdp: int, pmdval: int) -> None:
        """Write the directory entry and tell the host which of which directory."""
        self.set_u32(cpu, pmdp, pmdval)
        pa = self.pa(pmdp)
        call = Call.SET_PGD if self._abi.has(Call.SET_PGD) else Call.SET_PMD
        # SET_PMD takes the page of the directory and the index in it, not the entry's address.
        self.lazy_hcall(cpu, call, pa & ~PAGE_MASK, (pa & PAGE_MASK) // 4)

    @hookimpl
    def flush_tlb_user(self, cpu: Vcpu) -> None:
        """FLUSH_TLB of the present address space below the kernel."""
        self.lazy_hcall(cpu, Call.FLUSH_TLB, FLUSH_USER)

    @hookimpl
    def flush_tlb_kernel(self, cpu: Vcpu) -> None:
        """FLUSH_TLB of everything."""
        self.lazy_hcall(cpu, Call.FLUSH_TLB, FLUSH_ALL)

    @hookimpl
    def flush_tlb_single(self, cpu: Vcpu, addr: int) -> None:
        """Set the shadow's entry to nothing: it comes back on demand."""
        self.lazy_hcall(cpu, Call.SET_PTE, self._variables.cr3, addr, 0)
