"""The ops that a KVM guest replaces: arch/x86/kernel/kvm.c (6.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pvops_core.errors import MachineError
from pvops_core.hookspecs import hookimpl
from pvops_kvm.host import KvmPlatform

if TYPE_CHECKING:
    from pvops_core.hookspecs import Environment
    from pvops_core.machine import Vcpu

FLUSH_CEILING: Final = 33
"""tlb_single_page_flush_ceiling (arch/x86/mm/tlb.c): more pages than this are flushed as a whole."""


class KvmOps:
    """io_delay, the remote TLB flush and the spinlock ops."""

    def __init__(self, env: Environment) -> None:
        if not isinstance(env.platform, KvmPlatform):
            raise MachineError("KVM's ops need KVM's platform under them")
        self.env = env
        self.host = env.platform

    @hookimpl
    def io_delay(self, cpu: Vcpu) -> None:
        """kvm_io_delay: nothing, since no real device is behind the port."""

    @hookimpl
    def flush_tlb_multi(self, cpu: Vcpu, cpus: int, info: int) -> None:
        """kvm_flush_tlb_multi: a vCPU that is off its processor flushes all when it comes back, and gets no interrupt.

        ``cpus`` is a struct cpumask *, ``info`` a struct flush_tlb_info *.
        """
        for vcpu in self._members(cpu, cpus):
            if self.host.preempted(vcpu.index, cpu):
                vcpu.flush_tlb()
            else:
                self._flush_range(cpu, vcpu, info)

    def _members(self, cpu: Vcpu, mask: int) -> Iterator[Vcpu]:
        bits = self.env.layout.pointer_size * 8
        for vcpu in self.env.machine.vcpus:
            word = cpu.word(mask + vcpu.index // bits * (bits // 8))
            if word >> vcpu.index % bits & 1:
                yield vcpu

    def _flush_range(self, cpu: Vcpu, target: Vcpu, info: int) -> None:
        """native_flush_tlb_multi of one CPU: mm, start, end, u64 new_tlb_gen, u32 initiating_cpu, u8 stride_shift."""
        word = self.env.layout.pointer_size
        start, end = cpu.word(info + word), cpu.word(info + 2 * word)
        stride = 1 << cpu.u8(info + 3 * word + 12)
        if end - start > FLUSH_CEILING * stride:
            target.flush_tlb()
        else:
            for address in range(start, end, stride):
                target.flush_tlb(address)

    @hookimpl
    def tlb_remove_table(self, cpu: Vcpu, tlb: int, table: int) -> None:
        """tlb_remove_table: the table waits in the batch until every CPU has flushed.

        ``tlb`` is a struct mmu_gather *; the guest says where in it the batch is.
        """
        size, symbols = self.env.layout.pointer_size, self.env.symbols
        nr = tlb + symbols["gather_nr_offset"]
        count = cpu.word(nr)
        cpu.set_word(tlb + symbols["gather_tables_offset"] + count * size, table)
        cpu.set_word(nr, count + 1)

    @hookimpl
    def lock_wait(self, cpu: Vcpu, ptr: int, val: int) -> None:
        """kvm_wait: hlt until kicked, if the u8 at ``ptr`` still is ``val``."""
        if cpu.u8(ptr) != val:
            return
        if cpu.interrupts_enabled:
            cpu.insn.sti()
        cpu.insn.hlt()

    @hookimpl
    def lock_kick(self, cpu: Vcpu, cpu_nr: int) -> None:  # noqa: ARG002  a hook names the vCPU first, needed or not
        """kvm_kick_cpu: hypercall KVM_HC_KICK_CPU with the APIC number, which here is the CPU's."""
        self.host.kick(cpu_nr)

    @hookimpl
    def vcpu_is_preempted(self, cpu: Vcpu, cpu_nr: int) -> int:
        """__kvm_vcpu_is_preempted: the KVM_VCPU_PREEMPTED bit of the vCPU's steal time."""
        return int(self.host.preempted(cpu_nr, cpu))
