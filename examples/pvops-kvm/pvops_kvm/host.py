"""KVM: the hypervisor under a PC. It answers cpuid, its MSRs and hypercalls, and tells each vCPU when it does not run.

Source: arch/x86/kvm/x86.c and cpuid.c (6.1): kvm_emulate_hypercall, kvm_set_msr_common, record_steal_time,
kvm_steal_time_set_preempted, kvm_guest_time_update, kvm_write_wall_clock.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs
from pvops_native.platform import NativePlatform

from pvops_core.backends import hypercall
from pvops_core.machine import ServedMsr, Vcpu, general_protection
from pvops_kvm import abi, clocks
from pvops_kvm.abi import ENABLED, Call, Feature, Msr

if TYPE_CHECKING:
    from pvops_native.pc import PcSettings

    from pvops_core.guest import Guest
    from pvops_core.machine import Machine

VMCALL: Final = (b"\x0f\x01\xc1", b"\x0f\x01\xd9")
"""Intel's vmcall and AMD's vmmcall; KVM takes either."""
UNDEFINED: Final = 6
ARGUMENTS: Final = {64: ("rax", "rbx", "rcx", "rdx", "rsi"), 32: ("eax", "ebx", "ecx", "edx", "esi")}


class KvmHost(NativePlatform):
    """A PC whose processors KVM shares out: one vCPU runs at a time."""

    no_hypercall = -abi.ENOSYS
    offered: Feature = abi.USUAL
    """What the host offers; a class of one's own may offer less."""

    def __init__(self, machine: Machine, guest: Guest, settings: PcSettings | None = None) -> None:
        """Put KVM's registers in, beside a PC's devices."""
        super().__init__(machine, guest, settings)
        self.times = [clocks.VcpuTimes() for _ in machine.vcpus]
        self.poll_control = [1 for _ in machine.vcpus]
        self.unhalted: set[int] = set()
        self.asleep: set[int] = set()
        self.running: int | None = None
        self._memory = machine.memory.size
        machine.keep(_Keeper(self))
        for msr, needed in abi.NEEDS.items():
            if needed in self.offered:
                machine.served_msrs[msr] = ServedMsr(partial(self._read, msr), partial(self._write, msr))

    # cpuid

    def cpuid(self, vcpu: Vcpu, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """The signature, the features, and the processor's own leaves."""
        if leaf == abi.SIGNATURE_LEAF:
            ebx, ecx, edx = (int.from_bytes(abi.SIGNATURE[at : at + 4], "little") for at in (0, 4, 8))
            return abi.FEATURES_LEAF, ebx, ecx, edx
        if leaf == abi.FEATURES_LEAF:
            return self.offered & 0xFFFF_FFFF, 0, 0, self.offered >> 32 & 1
        return super().cpuid(vcpu, leaf, subleaf)

    # Registers

    def _read(self, msr: Msr, vcpu: Vcpu) -> int:
        match msr:
            case Msr.STEAL_TIME:
                return self.times[vcpu.index].steal_time
            case Msr.SYSTEM_TIME | Msr.SYSTEM_TIME_NEW:
                return self.times[vcpu.index].system_time
            case Msr.POLL_CONTROL:
                return self.poll_control[vcpu.index]
        return self.wall_clock

    wall_clock = 0
    """What was last written to MSR_KVM_WALL_CLOCK(_NEW): one register for all vCPUs."""

    def _write(self, msr: Msr, vcpu: Vcpu, value: int) -> None:
        times = self.times[vcpu.index]
        match msr:
            case Msr.STEAL_TIME:
                self._check(msr, value, abi.STEAL_ALIGN, abi.STEAL.size)
                times.steal_time = value
                clocks.vcpu_comes(self.machine, vcpu, times)
            case Msr.SYSTEM_TIME | Msr.SYSTEM_TIME_NEW:
                self._check(msr, value, 4, abi.TIME.size)
                times.system_time = value
                clocks.write_system_time(self.machine, vcpu, value)
            case Msr.POLL_CONTROL:
                if value & ~1:
                    raise general_protection(f"MSR {msr:#x}: reserved bits in {value:#x}")
                self.poll_control[vcpu.index] = value
            case Msr.WALL_CLOCK | Msr.WALL_CLOCK_NEW:
                self._check(msr, value | ENABLED, 4, abi.WALL.size)
                self.wall_clock = value
                clocks.write_wall_clock(self.machine, value, self.settings.rtc)

    def _check(self, msr: Msr, value: int, alignment: int, size: int) -> None:
        """An address that KVM can write at; its low bits but the lowest are reserved."""
        address = value & ~ENABLED
        if address % alignment or (value & ENABLED and address + size > self._memory):
            raise general_protection(f"MSR {msr:#x} takes no address {value:#x}")

    # Hypercalls

    def exception(self, vcpu: Vcpu, vector: int, error_code: int | None, address: int | None) -> None:
        """A vmcall is no exception here: the processor gives it to KVM."""
        if vector == UNDEFINED and self.fetched(vcpu, len(VMCALL[0])) in VMCALL:
            names = ARGUMENTS[64 if vcpu.long_mode else 32]
            number, *arguments = (vcpu.get(name) for name in names)
            result = -abi.EPERM if vcpu.cpl else self.hypercall(vcpu, number, *arguments)
            vcpu.set(names[0], result & vcpu.machine.kind.mask)
            vcpu.rip += len(VMCALL[0])
            return
        super().exception(vcpu, vector, error_code, address)

    @hypercall(Call.KICK_CPU, "KVM_HC_KICK_CPU")
    def kick_cpu(self, _vcpu: Vcpu, _flags: int, apic: int) -> int:
        """Wake the vCPU of an APIC number."""
        if Feature.PV_UNHALT not in self.offered:
            return -abi.ENOSYS
        self._kick(apic)
        return 0

    @hypercall(Call.SCHED_YIELD, "KVM_HC_SCHED_YIELD")
    def sched_yield(self, _vcpu: Vcpu, _apic: int) -> int:
        """Who runs next is the scheduler's business."""
        return 0 if Feature.PV_SCHED_YIELD in self.offered else -abi.ENOSYS

    @hypercall(Call.VAPIC_POLL_IRQ, "KVM_HC_VAPIC_POLL_IRQ")
    def vapic_poll_irq(self, _vcpu: Vcpu) -> int:
        """The exit was all that was asked for."""
        return 0

    def _kick(self, number: int) -> None:
        """Wake the vCPU of an APIC number from hlt, or keep it from its next one if it is not asleep.

        One that was never started does not run either, and is not woken.
        """
        if not 0 <= number < len(self.machine.vcpus):
            return
        vcpu = self.machine.vcpus[number]
        if vcpu.halted and number in self.asleep:
            self.asleep.discard(number)
            vcpu.wake()
        else:
            self.unhalted.add(number)

    def halted(self, vcpu: Vcpu) -> None:
        """Sleep, unless a kick came first."""
        if vcpu.index in self.unhalted:
            self.unhalted.discard(vcpu.index)
        else:
            self.asleep.add(vcpu.index)
            super().halted(vcpu)

    # Scheduling

    def before_entry(self, vcpu: Vcpu) -> None:
        """One vCPU goes on the processor, and another off it."""
        if vcpu.index != self.running:
            if self.running is not None:
                clocks.vcpu_leaves(self.machine, self.machine.vcpus[self.running], self.times[self.running])
            self.running = vcpu.index
            if clocks.vcpu_comes(self.machine, vcpu, self.times[vcpu.index]):
                self.flushes += 1
                vcpu.flush_tlb()
            clocks.write_system_time(self.machine, vcpu, self.times[vcpu.index].system_time)
        super().before_entry(vcpu)


class KvmState(NamedTuple):
    """KVM's part of a snapshot; see :class:`KvmHost` and :class:`clocks.VcpuTimes`."""

    times: tuple[tuple[int, int, int | None], ...]
    poll_control: tuple[int, ...]
    unhalted: tuple[int, ...]
    asleep: tuple[int, ...]
    running: int | None
    wall_clock: int


@attrs.frozen
class _Keeper:
    """What KVM knows, as a part of machine snapshots; the PC below it is another."""

    host: KvmHost

    def save(self) -> KvmState:
        """KVM's state."""
        host = self.host
        return KvmState(
            tuple((each.system_time, each.steal_time, each.off_since) for each in host.times),
            tuple(host.poll_control),
            tuple(sorted(host.unhalted)),
            tuple(sorted(host.asleep)),
            host.running,
            host.wall_clock,
        )

    def load(self, state: KvmState) -> None:
        """Put a state taken by ``save`` back."""
        host = self.host
        times, poll_control, unhalted, asleep, host.running, host.wall_clock = state
        host.times = [clocks.VcpuTimes(*each) for each in times]
        host.poll_control, host.unhalted, host.asleep = list(poll_control), set(unhalted), set(asleep)
