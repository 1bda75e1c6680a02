"""CR2, CR3 and TLB flushes: asm/tlbflush.h (2.6.23), arch/x86/mm/tlb.c (6.1).

Shootdowns reach the other vCPUs at once, as the interrupt that Linux sends and waits for does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pvops_core.hookspecs import hookimpl
from pvops_core.x86 import CR4_PGE
from pvops_native.ops.base import NativeGroup

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

CR4_PCIDE: Final = 1 << 17
CEILING: Final = 33
"""tlb_single_page_flush_ceiling: more pages than this are flushed as a whole address space."""


class TlbOps(NativeGroup):
    """mmu.*_cr2, mmu.*_cr3 and mmu.flush_*."""

    @hookimpl
    def read_cr2(self, cpu: Vcpu) -> int:
        """native_read_cr2."""
        return cpu.insn.mov_from_cr(2)

    @hookimpl
    def write_cr2(self, cpu: Vcpu, cr2: int) -> None:
        """native_write_cr2."""
        cpu.insn.mov_to_cr(2, cr2)

    @hookimpl
    def read_cr3(self, cpu: Vcpu) -> int:
        """__native_read_cr3: physical address of the top-level table, with its low control bits."""
        return cpu.insn.mov_from_cr(3)

    @hookimpl
    def write_cr3(self, cpu: Vcpu, cr3: int) -> None:
        """native_write_cr3: also flushes what is not global."""
        cpu.insn.mov_to_cr(3, cr3)

    @hookimpl
    def flush_tlb_user(self, cpu: Vcpu) -> None:
        """native_flush_tlb, native_flush_tlb_local: CR3 loaded again."""
        self._without_pcid(cpu)
        # Writing CR3 flushes all that is not global (SDM volume 3, 4.10.4.1).
        cpu.insn.mov_to_cr(3, cpu.insn.mov_from_cr(3))

    @hookimpl
    def flush_tlb_kernel(self, cpu: Vcpu) -> None:
        """native_flush_tlb_global: CR4.PGE toggled, which drops global entries too."""
        cr4 = cpu.insn.mov_from_cr(4)
        # Any change of PGE drops everything (SDM volume 3, 4.10.4.1), and the second write puts it back.
        cpu.insn.mov_to_cr(4, cr4 ^ CR4_PGE)
        cpu.insn.mov_to_cr(4, cr4)

    def _without_pcid(self, cpu: Vcpu) -> None:
        """With process-context identifiers a kernel notes which user space is to be flushed later."""
        # CR4 tells; the built-in guest keeps no such notes.
        if self.guest.own_functions and cpu.cr4 & CR4_PCIDE:
            self.leave("identifiers of user spaces")

    @hookimpl
    def flush_tlb_single(self, cpu: Vcpu, addr: int) -> None:
        """native_flush_tlb_single (2.6): invlpg."""
        cpu.insn.invlpg(addr)

    @hookimpl
    def flush_tlb_one_user(self, cpu: Vcpu, addr: int) -> None:
        """native_flush_tlb_one_user (6.1): invlpg."""
        self._without_pcid(cpu)
        cpu.insn.invlpg(addr)

    @hookimpl
    def flush_tlb_others(self, cpu: Vcpu, cpus: int, va: int) -> None:
        """native_flush_tlb_others (2.6): one page, or all if ``va`` is TLB_FLUSH_ALL, on the CPUs of a cpumask_t *."""
        # TLB_FLUSH_ALL is all ones.
        everything = (1 << self.env.layout.kind.bits) - 1
        for other in self._members(cpu, cpus):
            other.flush_tlb(None if va == everything else va)

    @hookimpl
    def flush_tlb_multi(self, cpu: Vcpu, cpus: int, info: int) -> None:
        """native_flush_tlb_multi (6.1): the range of a flush_tlb_info *, on the CPUs of a cpumask *."""
        self.leave("generations of the TLB, and processors that are lazy")
        pages = self._pages(cpu, info)
        for other in self._members(cpu, cpus):
            if pages is None:
                other.flush_tlb()
            else:
                for address in pages:
                    other.flush_tlb(address)

    def _pages(self, cpu: Vcpu, info: int) -> range | None:
        """The pages that a struct flush_tlb_info names; None for all (TLB_FLUSH_ALL, or more than the ceiling)."""
        word = self.env.layout.pointer_size
        start, end = cpu.word(info + word), cpu.word(info + 2 * word)
        stride = 1 << cpu.u8(info + 3 * word + 8 + 4)  # u64 new_tlb_gen, u32 initiating_cpu, u8 stride_shift
        # As a loop of invlpg this costs more than a reload (tlb_single_page_flush_ceiling).
        if end == (1 << 8 * word) - 1 or end - start > CEILING * stride:
            return None
        return range(start, end, stride)

    def _members(self, cpu: Vcpu, mask: int) -> Iterator[Vcpu]:
        """The vCPUs whose bits are set in a cpumask: unsigned longs, lowest CPU in the lowest bit."""
        bits = self.env.layout.kind.bits
        for vcpu in self.env.machine.vcpus:
            # cpumasks are arrays of longs, so the word depends on the guest's width.
            word = cpu.word(mask + vcpu.index // bits * (bits // 8))
            if word >> vcpu.index % bits & 1:
                yield vcpu
