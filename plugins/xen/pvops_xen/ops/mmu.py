"""pv_mmu_ops: entries (arch/x86/xen/mmu_pv.c). What is stored holds machine frames; what the kernel sees does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.hookspecs import hookimpl
from pvops_xen.hypervisor.abi import DOMID_SELF, UVMF_INVLPG, Hypercall, MmuUpdate
from pvops_xen.hypervisor.memory import entries as pte
from pvops_xen.ops.base import XenGroup
from pvops_xen.ops.kept.linuxbatch import LinuxBatch
from pvops_xen.ops.multicalls import UPDATE, Lazy

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

_FIXADDR_TOP: Final = 0xFFFF_FFFF_FF7F_F000
"""Of fixed page 0 of x86_64 (asm/fixmap.h)."""
_ALLOCATOR: Final = "the allocator of pages"
"""Makes the tables by which user space comes to the page of system calls."""


class XenEntryOps(XenGroup):
    """Conversions and the writing of entries."""

    # --- conversions -----------------------------------------------------------------------------------------------

    @hookimpl
    def pte_val(self, cpu: Vcpu, pte: int) -> int:
        """Machine to pseudo-physical."""
        del cpu
        return self.frames.entry_to_guest(pte)

    @hookimpl
    def pmd_val(self, cpu: Vcpu, pmd: int) -> int:
        """Machine to pseudo-physical."""
        del cpu
        return self.frames.entry_to_guest(pmd)

    @hookimpl
    def pud_val(self, cpu: Vcpu, pud: int) -> int:
        """Machine to pseudo-physical."""
        del cpu
        return self.frames.entry_to_guest(pud)

    @hookimpl
    def p4d_val(self, cpu: Vcpu, p4d: int) -> int:
        """Machine to pseudo-physical."""
        del cpu
        return self.frames.entry_to_guest(p4d)

    @hookimpl
    def pgd_val(self, cpu: Vcpu, pgd: int) -> int:
        """Machine to pseudo-physical."""
        del cpu
        return self.frames.entry_to_guest(pgd)

    @hookimpl
    def make_pte(self, cpu: Vcpu, val: int) -> int:
        """Pseudo-physical to machine; early in boot a kernel sees to it that its list of frames stays read-only."""
        del cpu
        if (early := self.early("make_pte")) is not None:
            return early.early_value(val)
        return self.frames.entry_to_machine(val)

    @hookimpl
    def make_pmd(self, cpu: Vcpu, val: int) -> int:
        """Pseudo-physical to machine."""
        del cpu
        return self.frames.entry_to_machine(val)

    @hookimpl
    def make_pud(self, cpu: Vcpu, val: int) -> int:
        """Pseudo-physical to machine."""
        del cpu
        return self.frames.entry_to_machine(val)

    @hookimpl
    def make_p4d(self, cpu: Vcpu, val: int) -> int:
        """Pseudo-physical to machine."""
        del cpu
        return self.frames.entry_to_machine(val)

    @hookimpl
    def make_pgd(self, cpu: Vcpu, val: int) -> int:
        """Pseudo-physical to machine."""
        del cpu
        return self.frames.entry_to_machine(val)

    # --- writing ---------------------------------------------------------------------------------------------------

    @hookimpl
    def set_pte(self, cpu: Vcpu, ptep: int, pteval: int) -> None:
        """Early: a plain store, what must not be writable made read-only. Later: mmu_update, batched in MMU mode."""
        early = self.early("set_pte")
        # A table that is in use already is written by Xen, also early (``emulate_store``).
        if early is not None and not early.in_early_map(ptep):
            early.store(cpu, ptep, pteval)
            return
        if not self.kept.late:
            cpu.set_u64(ptep, self._early(cpu, ptep, pteval))
            return
        batch = self.mc(cpu)
        # Past the batch, as ``__xen_set_pte`` does for the lazy mode's sake.
        if isinstance(batch, LinuxBatch) and not batch.waits(Lazy.MMU):  # __xen_set_pte: past the batch
            place = self.argument(cpu, UPDATE.at(self.bits).form.pack(self.tables.machine_of(cpu, ptep), pteval))
            self.platform.hypercall(cpu, Hypercall.MMU_UPDATE, place, 1, 0, DOMID_SELF)
            return
        self._update(cpu, ptep, pteval)

    def _early(self, cpu: Vcpu, ptep: int, value: int) -> int:
        """``mask_rw_pte``: page tables and descriptor tables stay read-only in whatever early code maps."""
        old = cpu.u64(ptep)
        if not value & pte.P:
            return value
        # Read-only stays read-only: page tables are mapped early, and must not become writable.
        if old & pte.P and not old & pte.RW:
            value &= ~pte.RW
        pfn = self.frames.pfn(pte.frame_of(value))
        # Frames of tables in the making, and of the buffer they come from.
        if pfn in self.kept.protected or pfn in self.tables.early_buffer(cpu):
            value &= ~pte.RW
        return value

    def _update(self, cpu: Vcpu, va: int, value: int, kind: MmuUpdate = MmuUpdate.NORMAL_PT_UPDATE) -> None:
        batch = self.mc(cpu)
        batch.update_entry(self.tables.machine_of(cpu, va), value, kind)
        batch.issue(Lazy.MMU)

    @hookimpl
    def set_pte_at(self, cpu: Vcpu, addr: int, ptep: int, pteval: int) -> None:
        """By address where the table is the one in use (one call less to translate), else as set_pte."""
        # By address where the address is of this very table: one hypercall, and no walk in Xen.
        if self.kept.late and self._maps(cpu, addr, ptep):
            batch = self.mc(cpu)
            if batch.waits(Lazy.MMU):
                batch.update_va_mapping(addr, pteval)
                return
            if not self.platform.hypercall(cpu, Hypercall.UPDATE_VA_MAPPING, *batch.va_arguments(addr, pteval, 0)):
                return
        self.set_pte(cpu, ptep, pteval)

    def _maps(self, cpu: Vcpu, addr: int, ptep: int) -> bool:
        from pvops_xen.hypervisor.memory.walk import guest_l1e  # noqa: PLC0415 - keeps the ops' imports few

        return guest_l1e(self.platform.hv, cpu.index, addr) == self.tables.machine_of(cpu, ptep)

    def _set_upper(self, cpu: Vcpu, va: int, value: int) -> None:
        """A table that is not pinned is ordinary memory; else mmu_update."""
        if self.tables.is_pinned(cpu, va):
            self._update(cpu, va, value)
        else:
            cpu.set_u64(va, value)

    @hookimpl
    def set_pmd(self, cpu: Vcpu, pmdp: int, pmdval: int) -> None:
        """Write a level-2 entry."""
        self._set_upper(cpu, pmdp, pmdval)

    @hookimpl
    def set_pud(self, cpu: Vcpu, pudp: int, pudval: int) -> None:
        """Write a level-3 entry."""
        self._set_upper(cpu, pudp, pudval)

    @hookimpl
    def set_p4d(self, cpu: Vcpu, p4dp: int, p4dval: int) -> None:
        """Write a root entry; user space's also into the root that user mode runs on, by the same hypercall."""
        # User space's entry is in both roots, and only the pair is consistent.
        user = self.tables.user_entry(cpu, p4dp)
        places = [p4dp, user] if user else [p4dp]
        if not self.tables.is_pinned(cpu, p4dp):
            for place in places:
                cpu.set_u64(place, p4dval)
            return
        batch = self.mc(cpu)
        for place in places:
            batch.update_entry(self.tables.machine_of(cpu, place), p4dval)
        batch.issue(Lazy.MMU)

    @hookimpl
    def set_pte_atomic(self, cpu: Vcpu, ptep: int, pteval: int) -> None:
        """mmu_update is atomic anyway."""
        self.set_pte(cpu, ptep, pteval)

    @hookimpl
    def set_pte_present(self, cpu: Vcpu, addr: int, ptep: int, pte: int) -> None:
        """As set_pte_at: no one sees half an entry."""
        self.set_pte_at(cpu, addr, ptep, pte)

    @hookimpl
    def pte_clear(self, cpu: Vcpu, ptep: int) -> None:
        """An empty entry."""
        self.set_pte(cpu, ptep, 0)

    @hookimpl
    def pmd_clear(self, cpu: Vcpu, pmdp: int) -> None:
        """An empty entry."""
        self._set_upper(cpu, pmdp, 0)

    @hookimpl
    def ptep_modify_prot_start(self, cpu: Vcpu, ptep: int) -> int:
        """The entry as it is; nothing is cleared, for the commit keeps accessed and dirty bits."""
        # Nothing is cleared: the commit keeps what the processor set meanwhile.
        return cpu.u64(ptep)

    @hookimpl
    def ptep_modify_prot_commit(self, cpu: Vcpu, ptep: int, pte: int) -> None:
        """MMU_PT_UPDATE_PRESERVE_AD: Xen ors the bits that were set meanwhile into the new entry."""
        # MMU_PT_UPDATE_PRESERVE_AD is what makes start and commit one step.
        self._update(cpu, ptep, pte, MmuUpdate.PT_UPDATE_PRESERVE_AD)

    @hookimpl
    def set_fixmap(self, cpu: Vcpu, idx: int, phys: int, flags: int) -> None:
        """One page at fixaddr_top - idx pages, through update_va_mapping."""
        if self.mappings is not None:
            if idx == self.mappings.for_vsyscalls:
                self.leave(_ALLOCATOR)
            self.mappings.map(cpu, _FIXADDR_TOP - (idx << 12), self.mappings.fixed_entry(idx, phys, flags), UVMF_INVLPG)
            return
        va = self.symbol("fixaddr_top") - (idx << 12) & self.platform.hv.abi.mask
        # fixaddr_top counts downwards in pages, as fixmap.h has it.
        entry = self.frames.entry_to_machine(phys & pte.ADDRESS | flags) if flags & pte.P else 0
        arguments = self.mc(cpu).va_arguments(va, entry, UVMF_INVLPG)
        if self.platform.hypercall(cpu, Hypercall.UPDATE_VA_MAPPING, *arguments):
            self.bug(f"set_fixmap({idx}, {phys:#x}) was refused")
