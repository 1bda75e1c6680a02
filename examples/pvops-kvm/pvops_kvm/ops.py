"""The ops that a KVM guest replaces: arch/x86/kernel/kvm.c and kernel/locking/qspinlock_paravirt.h (6.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from pvops_core.errors import MachineError
from pvops_core.hookspecs import hookimpl
from pvops_core.machine import Reschedule
from pvops_kvm.abi import ENABLED, PREEMPTED, STEAL, VCPU_FLUSH_TLB, VCPU_PREEMPTED, Call, Msr
from pvops_kvm.platform import SYSTEM_TIME, KvmPlatform

if TYPE_CHECKING:
    from pvops_core.backends import Environment
    from pvops_core.machine import Vcpu

FLUSH_CEILING: Final = 33
"""tlb_single_page_flush_ceiling (arch/x86/mm/tlb.c): more pages than this are flushed as a whole."""
SPINLOCKS: Final = frozenset({"queued_spin_lock_slowpath", "queued_spin_unlock", "lock_wait", "lock_kick"})
"""Ops that ``kvm_spinlock_init`` replaces on more than one CPU."""
FLUSHES: Final = frozenset({"flush_tlb_multi", "tlb_remove_table"})
"""Ops that ``kvm_guest_init`` replaces on more than one CPU (``pv_tlb_flush_supported``)."""
LOCKED: Final = 1
SLOW: Final = 3
"""_Q_SLOW_VAL: somebody sleeps for the lock."""


class OpsState(NamedTuple):
    """CPUs that are online, and by address of a lock those that wait for it."""

    online: tuple[int, ...]
    waiters: dict[int, tuple[int, ...]]


class KvmOps:
    """io_delay, the remote TLB flush and the spinlock ops.

    Attributes:
        absent: those of them that one CPU has no use for.
        online: CPUs that have told KVM where their areas are (``kvm_guest_cpu_init``).
        waiters: by address of a lock, the CPUs that wait for it, in order.
    """

    def __init__(self, env: Environment) -> None:
        if not isinstance(env.platform, KvmPlatform):
            raise MachineError("KVM's ops need KVM's platform under them")
        self.env = env
        self.host = env.platform
        self.absent = SPINLOCKS | FLUSHES if len(env.machine.vcpus) == 1 else frozenset[str]()
        self.online: set[int] = set()
        self.waiters: dict[int, list[int]] = {}
        env.machine.keep(self)

    def save(self) -> OpsState:
        """Which CPUs are online, and who waits for which lock."""
        waiters = {lock: tuple(each) for lock, each in self.waiters.items()}
        return OpsState(tuple(sorted(self.online)), waiters)

    def load(self, state: OpsState) -> None:
        """Put a state taken by ``save`` back."""
        self.online = set(state.online)
        self.waiters = {lock: list(each) for lock, each in state.waiters.items()}

    def come_online(self, cpu: Vcpu) -> None:
        """kvm_guest_cpu_init, kvm_register_clock: tell KVM where this CPU's areas are.

        The kernel does it when a CPU starts; the built-in guest has no op there, so it is done at the first one that
        is KVM's.
        """
        if cpu.index not in self.online:
            self.online.add(cpu.index)
            area = self.host.area(cpu.index)
            cpu.insn.wrmsr(Msr.STEAL_TIME, area | ENABLED)
            cpu.insn.wrmsr(Msr.SYSTEM_TIME_NEW, area + SYSTEM_TIME | ENABLED)

    def steal_clock(self, number: int) -> int:
        """kvm_steal_clock: u64 nanoseconds that a CPU could have run and did not.

        No op of the table: the kernel reaches it by a static call.
        """
        memory = self.env.machine.memory
        return int(STEAL.unpack(memory.read(self.host.area(number), STEAL.size))[0]) if number in self.online else 0

    @hookimpl
    def io_delay(self, cpu: Vcpu) -> None:
        """kvm_io_delay: nothing, since no real device is behind the port."""

    @hookimpl
    def flush_tlb_multi(self, cpu: Vcpu, cpus: int, info: int) -> None:
        """kvm_flush_tlb_multi: a CPU that is off its processor is told to flush when it comes back, and not disturbed.

        ``cpus`` is a struct cpumask *, ``info`` a struct flush_tlb_info *.
        """
        self.come_online(cpu)
        memory = self.env.machine.memory
        for vcpu in self._members(cpu, cpus):
            place = self.host.area(vcpu.index) + PREEMPTED
            if vcpu.index in self.online and memory.u8(place) & VCPU_PREEMPTED:
                memory.set_u8(place, memory.u8(place) | VCPU_FLUSH_TLB)
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
    def lock_kick(self, cpu: Vcpu, cpu_nr: int) -> None:
        """kvm_kick_cpu: KVM_HC_KICK_CPU with the APIC number, which here is the CPU's."""
        self.host.hypercall(cpu, Call.KICK_CPU, 0, cpu_nr)

    @hookimpl
    def queued_spin_lock_slowpath(self, cpu: Vcpu, lock: int) -> None:
        """__pv_queued_spin_lock_slowpath: take the u8 at ``lock``, or say that somebody sleeps for it and sleep."""
        self.come_online(cpu)
        queue = self.waiters.setdefault(lock, [])
        if not cpu.u8(lock) and (not queue or queue[0] == cpu.index):
            del queue[:1]
            cpu.set_u8(lock, SLOW if queue else LOCKED)
            if not queue:
                del self.waiters[lock]
            return
        if cpu.index not in queue:
            queue.append(cpu.index)
        if cpu.u8(lock):
            cpu.set_u8(lock, SLOW)
        cpu.insn.hlt()
        raise Reschedule

    @hookimpl
    def queued_spin_unlock(self, cpu: Vcpu, lock: int) -> None:
        """__pv_queued_spin_unlock: clear the u8 at ``lock``; the first who sleeps for it is kicked."""
        slow = cpu.u8(lock) == SLOW
        cpu.set_u8(lock, 0)
        if slow and lock in self.waiters:
            self.lock_kick(cpu, self.waiters[lock][0])

    @hookimpl
    def vcpu_is_preempted(self, cpu: Vcpu, cpu_nr: int) -> int:
        """__kvm_vcpu_is_preempted: bool, the KVM_VCPU_PREEMPTED bit of a CPU's steal time."""
        self.come_online(cpu)
        if cpu_nr not in self.online:
            return 0
        return self.env.machine.memory.u8(self.host.area(cpu_nr) + PREEMPTED) & VCPU_PREEMPTED
