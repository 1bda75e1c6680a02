"""Address spaces and the fixed map: arch/x86/mm/pgtable.c and include/asm-generic/tlb.h (6.1).

Source: __paravirt_pgd_alloc, native_set_fixmap, set_pte_vaddr (arch/x86/mm/init_64.c), tlb_remove_page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.errors import MachineError
from pvops_core.hookspecs import hookimpl
from pvops_core.x86 import PAGE_SHIFT, PRESENT
from pvops_native.ops.base import NativeGroup

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

FIXADDR_TOP: Final = {32: 0xFFFFF000, 64: 0xFFFFFFFFFF7FF000}
"""Virtual address of fixed page 0, the others below it (asm/fixmap.h), where no symbol fixaddr_top says so."""
# Bits 12 to 51 (SDM volume 3, 4.5).
ENTRY_ADDRESS: Final = 0x000FFFFFFFFFF000


class MemoryOps(NativeGroup):
    """mmu.* of 6.1 that is neither an entry nor a flush."""

    @hookimpl
    def pgd_alloc(self, cpu: Vcpu) -> int:  # noqa: ARG002  # a hook names the vCPU first, needed or not
        """__paravirt_pgd_alloc: int, 0."""
        return 0

    @hookimpl
    def tlb_remove_table(self, cpu: Vcpu, tlb: int, table: int) -> None:
        """tlb_remove_page: the table joins the batch of pages that are freed after the flush.

        The built-in guest's struct mmu_gather has mm, unsigned long nr, void *tables[]; a kernel's is left to it.
        """
        self.leave("batches of pages that wait for a flush")
        size = self.env.layout.pointer_size
        nr = tlb + self.guest.member("mmu_gather", "nr")
        count = cpu.word(nr)
        cpu.set_word(tlb + self.guest.member("mmu_gather", "tables") + count * size, table)
        cpu.set_word(nr, count + 1)

    @hookimpl
    def set_fixmap(self, cpu: Vcpu, idx: int, phys: int, flags: int) -> None:
        """native_set_fixmap: the leaf entry of fixed page ``idx``, then invlpg; a kernel counts the pages it has set.

        Where the page has no table yet the kernel's allocator has to make one.

        Raises:
            MachineError: the page has no table, and the guest no function that makes one.
        """
        top = self.env.symbols.get("fixaddr_top", FIXADDR_TOP[self.env.layout.kind.bits])
        # Fixed pages are numbered from the top down (__fix_to_virt()).
        va = top - (idx << PAGE_SHIFT)
        place = self._leaf(cpu, va)
        if (mask := "__default_kernel_pte_mask") in self.guest:
            # native_set_fixmap(): bits that the processor does not know, such as GLOBAL with PTI, are masked out.
            flags &= cpu.word(self.guest.address(mask))
        # By physical address, as the tables need not be mapped writable.
        self.env.machine.memory.set_u64(place, phys & ENTRY_ADDRESS | flags if flags else 0)
        cpu.insn.invlpg(va)
        # reserve_top_address() refuses once it is not 0.
        if (count := "fixmaps_set") in self.guest:
            at = self.guest.address(count)
            cpu.set_u32(at, cpu.u32(at) + 1 & 0xFFFF_FFFF)

    def _leaf(self, cpu: Vcpu, va: int) -> int:
        """Physical address of the leaf entry of an address in the tables in force."""
        table = cpu.insn.mov_from_cr(3) & ENTRY_ADDRESS
        # Levels with tables; a large page cannot hold a fixed one.
        for shift in (39, 30, 21):
            entry = self.env.machine.memory.u64(table + (va >> shift & 0x1FF) * 8)
            if not entry & PRESENT:
                self.leave("a fixed page without a table")
                raise MachineError(f"fixed page {va:#x} has no page table", vcpu=cpu.index, op="set_fixmap")
            table = entry & ENTRY_ADDRESS
        return table + (va >> PAGE_SHIFT & 0x1FF) * 8
