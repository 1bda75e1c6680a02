"""The host: a PC like bare metal's, with a hypervisor that knows which vCPU is off its processor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from pvops_native.platform import NativePlatform

if TYPE_CHECKING:
    from pvops_core.guests import GuestImage
    from pvops_core.machine import Machine, Vcpu

KICK_CPU: Final = "KVM_HC_KICK_CPU"


class KvmPlatform(NativePlatform):
    """Bare metal's devices; hypercalls as in Documentation/virt/kvm/x86/hypercalls.rst."""

    def __init__(self, machine: Machine, guest: GuestImage, options: Mapping[str, str]) -> None:
        super().__init__(machine, guest, options)
        self._unhalted: set[int] = set()

    def kick(self, number: int) -> None:
        """KVM_HC_KICK_CPU: wake a vCPU from hlt, or keep it from its next one if it is not asleep yet."""
        self.hypercalls[KICK_CPU] += 1
        vcpu = self.machine.vcpus[number]
        if vcpu.halted:
            vcpu.wake()
        else:
            self._unhalted.add(number)

    def halted(self, vcpu: Vcpu) -> None:
        """Sleep, unless a kick came first."""
        if vcpu.index in self._unhalted:
            self._unhalted.discard(vcpu.index)
        else:
            super().halted(vcpu)

    def preempted(self, number: int, asked_by: Vcpu) -> bool:
        """The byte kvm_steal_time.preempted: one vCPU runs at a time here, so all others are off their processor."""
        return number != asked_by.index

    def save(self) -> object:
        """Bare metal's state and the kicks that were not used yet."""
        return super().save(), frozenset(self._unhalted), self.hypercalls.copy()

    def load(self, state: object) -> None:
        """Put a state taken by ``save`` back."""
        if not isinstance(state, tuple):
            raise TypeError("not a state that KvmPlatform.save made")
        below, unhalted, hypercalls = state
        super().load(below)
        self._unhalted = set(unhalted)
        self.hypercalls = hypercalls.copy()
