"""pv_mmu_ops: TLB flushes and lazy MMU mode (arch/x86/xen/mmu.c, mmu_pv.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.hookspecs import hookimpl
from pvops_xen.hypervisor.abi import PAGE_SIZE, MmuExt
from pvops_xen.ops.base import XenGroup
from pvops_xen.ops.multicalls import Lazy

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

_WHOLE_SPACE32: Final = 0xFFFF_FFFF  # TLB_FLUSH_ALL


class XenTlbOps(XenGroup):
    """Flushes go with the batch, so that they come after the updates they are for."""

    def _extended(self, cpu: Vcpu, command: MmuExt, address: int | None = None) -> None:
        batch = self.mc(cpu)
        batch.extended(command, address)
        batch.issue(Lazy.MMU)

    @hookimpl
    def flush_tlb_user(self, cpu: Vcpu) -> None:
        """MMUEXT_TLB_FLUSH_LOCAL."""
        self._extended(cpu, MmuExt.TLB_FLUSH_LOCAL)

    @hookimpl
    def flush_tlb_kernel(self, cpu: Vcpu) -> None:
        """The same: Xen keeps no global entries for a guest's kernel."""
        self._extended(cpu, MmuExt.TLB_FLUSH_LOCAL)

    @hookimpl
    def flush_tlb_single(self, cpu: Vcpu, addr: int) -> None:
        """MMUEXT_INVLPG_LOCAL."""
        self._extended(cpu, MmuExt.INVLPG_LOCAL, addr)

    @hookimpl
    def flush_tlb_one_user(self, cpu: Vcpu, addr: int) -> None:
        """MMUEXT_INVLPG_LOCAL, of the page."""
        self._extended(cpu, MmuExt.INVLPG_LOCAL, addr & -PAGE_SIZE)

    @hookimpl
    def flush_tlb_others(self, cpu: Vcpu, cpus: int, va: int) -> None:
        """MMUEXT_*_MULTI on a mask without this vCPU; all ones in ``va`` means everything."""
        one = None if va == _WHOLE_SPACE32 & self.platform.hv.abi.mask else va
        self._multi(cpu, self._cpumask(cpu, cpus) & ~(1 << cpu.index), one)

    @hookimpl
    def flush_tlb_multi(self, cpu: Vcpu, cpus: int, info: int) -> None:
        """MMUEXT_*_MULTI; a range of at most one page is flushed by address."""
        start = cpu.word(info + self.guest.member("flush_tlb_info", "start"))
        end = cpu.word(info + self.guest.member("flush_tlb_info", "end"))
        one_page = end != self.platform.hv.abi.mask and end - start <= PAGE_SIZE
        self._multi(cpu, self._cpumask(cpu, cpus), start if one_page else None)

    def _cpumask(self, cpu: Vcpu, cpus: int) -> int:
        """A cpumask in guest memory, cut to the vCPUs that there are."""
        count = len(self.env.machine.vcpus)
        word = self.platform.hv.abi.word
        size = (count + 8 * word - 1) // (8 * word) * word
        return int.from_bytes(cpu.read_virtual(cpus, size), "little") & (1 << count) - 1

    def _multi(self, cpu: Vcpu, mask: int, address: int | None) -> None:
        if not mask:
            return
        word = self.platform.hv.abi.word
        batch = self.mc(cpu)
        command = MmuExt.TLB_FLUSH_MULTI if address is None else MmuExt.INVLPG_MULTI
        batch.extended(command, address, mask=mask.to_bytes(8, "little")[: max(word, 8)])
        batch.issue(Lazy.MMU)

    # --- lazy mode -------------------------------------------------------------------------------------------------

    @hookimpl
    def mmu_lazy_mode_enter(self, cpu: Vcpu) -> None:
        """From now on updates wait."""
        self.mc(cpu).enter(Lazy.MMU)

    @hookimpl
    def mmu_lazy_mode_leave(self, cpu: Vcpu) -> None:
        """All of them take effect."""
        self.mc(cpu).leave()

    @hookimpl
    def mmu_lazy_mode_flush(self, cpu: Vcpu) -> None:
        """All of them take effect, and later ones wait again."""
        self.mc(cpu).flush_mmu()

    @hookimpl
    def set_lazy_mode(self, cpu: Vcpu, mode: int) -> None:
        """2.6.23: one op for both modes."""
        batch = self.mc(cpu)
        if mode == Lazy.FLUSH:
            batch.flush()
        elif mode == Lazy.NONE:
            batch.leave()
        else:
            batch.flush()
            batch.enter(Lazy(mode))
