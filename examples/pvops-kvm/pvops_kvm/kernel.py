"""How a real kernel fills pv_ops when it finds KVM under it.

Source: arch/x86/kernel/kvm.c (6.1): paravirt_ops_setup, kvm_guest_init, pv_tlb_flush_supported, kvm_spinlock_init;
all run before the kernel patches itself. A kernel without one of the functions was built without that part, and keeps
what it was linked with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from pvops_core.patching.fills import callee_save, in_layout, present, queued_spinlocks
from pvops_kvm.abi import USUAL, Feature

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.ops import Layout


@attrs.frozen
class KvmKernel:
    """A Linux guest of KVM.

    Attributes:
        host: what the host offers.
    """

    host: Feature = USUAL

    def slots(self, kernel: KernelImage, layout: Layout, cpus: int) -> Mapping[str, str | int | None]:
        """The few ops that the guest code replaces.

        Args:
            kernel: the image.
            layout: its table, which may lack some of these ops: io_delay and tlb_remove_table are gone by 7.2.
            cpus: number of possible CPUs: with one there is nobody to wait for or to flush.
        """
        wanted: dict[str, str | int | None] = {}
        if Feature.NOP_IO_DELAY in self.host:
            wanted |= present(kernel, {"cpu.io_delay": "kvm_io_delay"})
        if Feature.STEAL_TIME in self.host:
            wanted |= present(kernel, {"lock.vcpu_is_preempted": callee_save("__kvm_vcpu_is_preempted")})
        if cpus > 1 and self._flushes() and "kvm_flush_tlb_multi" in kernel.symbols:
            wanted |= {"mmu.flush_tlb_multi": "kvm_flush_tlb_multi", "mmu.tlb_remove_table": "tlb_remove_table"}
        if cpus > 1 and self._sleeps() and "kvm_wait" in kernel.symbols:
            wanted |= queued_spinlocks(wait="kvm_wait", kick="kvm_kick_cpu")
        return in_layout(layout, wanted)

    def features(self, kernel: KernelImage, cpus: int) -> frozenset[str]:
        """None by KVM's own code; those of the lock ops follow from the table."""
        del kernel, cpus
        return frozenset()

    def _flushes(self) -> bool:
        needed = Feature.PV_TLB_FLUSH | Feature.STEAL_TIME
        return needed in self.host and not self.host & (Feature.REALTIME | Feature.MWAIT)

    def _sleeps(self) -> bool:
        return Feature.PV_UNHALT in self.host and Feature.REALTIME not in self.host
