"""Stores to page tables, in the width and order of each page-table format.

Source: asm/pgtable-2level.h and pgtable-3level.h (2.6.23) with their barriers; asm/pgtable_64.h (6.1); the
ptep_modify_prot pair of include/linux/pgtable.h, which on bare metal is an exchange with zero and a plain store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.hookspecs import hookimpl
from pvops_core.kinds import MachineKind
from pvops_core.x86 import PAGE
from pvops_native.ops.base import NativeGroup

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

NX: Final = 1 << 63
# _PAGE_USER and _PAGE_PRESENT.
USER_PRESENT: Final = 5


class EntryOps(NativeGroup):
    """mmu.set_*, mmu.*_clear: the store is a guest access, so a read-only table faults as it does on hardware."""

    def _store_entry(self, cpu: Vcpu, place: int, value: int) -> None:
        """One store of a whole entry: mov, or cmpxchg8b where the entry is wider than a register."""
        if self.env.layout.kind is MachineKind.I386:
            cpu.set_u32(place, value)
        else:
            cpu.set_u64(place, value)

    @hookimpl
    def set_pte(self, cpu: Vcpu, ptep: int, pteval: int) -> None:
        """native_set_pte: under PAE the high word first, so that the entry turns present as a whole."""
        if self.env.layout.kind is MachineKind.PAE:
            # The processor may walk between the two stores, and must not see half of a present entry.
            cpu.set_u32(ptep + 4, pteval >> 32)
            cpu.set_u32(ptep, pteval & 0xFFFFFFFF)
        else:
            self._store_entry(cpu, ptep, pteval)

    @hookimpl
    def set_pte_at(self, cpu: Vcpu, ptep: int, pteval: int) -> None:
        """native_set_pte_at: native_set_pte, whatever the address space."""
        self.set_pte(cpu, ptep, pteval)

    @hookimpl
    def set_pte_atomic(self, cpu: Vcpu, ptep: int, pteval: int) -> None:
        """native_set_pte_atomic (PAE): set_64bit, one cmpxchg8b."""
        self._store_entry(cpu, ptep, pteval)

    @hookimpl
    def set_pte_present(self, cpu: Vcpu, ptep: int, pte: int) -> None:
        """native_set_pte_present (PAE): not present, then the high word, then the low one."""
        # Absent first: the entry is present now, and its halves change one by one.
        cpu.set_u32(ptep, 0)
        self.set_pte(cpu, ptep, pte)

    @hookimpl
    def set_pmd(self, cpu: Vcpu, pmdp: int, pmdval: int) -> None:
        """native_set_pmd: one store; set_64bit under PAE."""
        self._store_entry(cpu, pmdp, pmdval)

    @hookimpl
    def set_pud(self, cpu: Vcpu, pudp: int, pudval: int) -> None:
        """native_set_pud: one store; set_64bit under PAE."""
        self._store_entry(cpu, pudp, pudval)

    @hookimpl
    def set_p4d(self, cpu: Vcpu, p4dp: int, p4dval: int) -> None:
        """native_set_p4d: one store; with page-table isolation a second, see there."""
        self._store_entry(cpu, p4dp, self._isolated(cpu, p4dp, p4dval))

    @hookimpl
    def set_pgd(self, cpu: Vcpu, pgdp: int, pgdval: int) -> None:
        """native_set_pgd: one store; with page-table isolation a second, see there."""
        self._store_entry(cpu, pgdp, self._isolated(cpu, pgdp, pgdval))

    def _isolated(self, cpu: Vcpu, place: int, value: int) -> int:
        """__pti_set_user_pgtbl: an entry of user space also goes into user mode's root, in the page behind.

        Returns:
            What the kernel's own root gets: user space is not executable there.
        """
        # The user's root is the page behind the kernel's, and entries of the upper half are the kernel's alone.
        if not self.wide or place % PAGE >= PAGE // 2 or not self.guest.has("pti"):
            return value
        cpu.set_u64(place | PAGE, value)
        # Not executable by the kernel's root: a return to user mode with the wrong CR3 must fault.
        nx = "__supported_pte_mask" in self.guest and cpu.u64(self.guest.address("__supported_pte_mask")) & NX
        return value | NX if nx and value & USER_PRESENT == USER_PRESENT else value

    @hookimpl
    def pte_clear(self, cpu: Vcpu, ptep: int) -> None:
        """native_pte_clear (PAE): the low word, which has the present bit, first."""
        # Absent before the rest goes, for the same reason in reverse.
        cpu.set_u32(ptep, 0)
        cpu.set_u32(ptep + 4, 0)

    @hookimpl
    def pmd_clear(self, cpu: Vcpu, pmdp: int) -> None:
        """native_pmd_clear (PAE): the low word first."""
        cpu.set_u32(pmdp, 0)
        cpu.set_u32(pmdp + 4, 0)

    @hookimpl
    def ptep_modify_prot_start(self, cpu: Vcpu, ptep: int) -> int:
        """__ptep_modify_prot_start: takes the pte_t out and leaves 0, so that the hardware cannot change it."""
        # An exchange on hardware, so that ACCESSED and DIRTY are not lost; here nothing can come between.
        value = cpu.u64(ptep)
        cpu.set_u64(ptep, 0)
        return value

    @hookimpl
    def ptep_modify_prot_commit(self, cpu: Vcpu, ptep: int, pte: int) -> None:
        """__ptep_modify_prot_commit: set_pte_at."""
        self.set_pte(cpu, ptep, pte)
