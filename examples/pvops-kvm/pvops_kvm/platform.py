"""KVM's virtual machines, with the built-in guest or a real kernel in them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.guests import BootInfo, BuiltinGuest
from pvops_core.machine import GuestFault
from pvops_kvm.host import KvmHost

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

PAGE: Final = 4096
PER_CPU: Final = 128
"""Bytes of a CPU's areas: struct kvm_steal_time, then struct pvclock_vcpu_time_info."""
SYSTEM_TIME: Final = 64
"""Where in them the latter is."""
WRITERS: Final = ("native_write_msr", "native_write_msr_safe")
"""Functions of a kernel that execute wrmsr: ``(u32 msr, u32 low, u32 high)``."""


PER_CPU_PAGES: Final = 4
"""Pages for the areas of 128 CPUs, which is as many as a machine can have."""


class KvmPlatform(KvmHost):
    """A virtual machine. Behind the memory that the built-in guest is told of lie the kernel's per-CPU areas.

    A real kernel finds KVM by cpuid and does the rest itself. The engine executes wrmsr without telling anybody, so KVM
    looks on where the kernel has that instruction: in the functions that its table of ops has for it.
    """

    @staticmethod
    def machine_memory(guest_memory: int) -> int:
        """The areas besides."""
        return guest_memory + PER_CPU_PAGES * PAGE

    def build(self) -> None:
        """As bare metal does, with the areas set aside, or looking on at a kernel's writes of MSRs."""
        super().build()
        if isinstance(self.guest, BuiltinGuest):
            self._set_areas_aside(self.guest)
            return
        for name in WRITERS:
            if name in self.guest.symbols:
                self.machine.break_at(self.guest.symbols[name], partial(self._write_msr, name))

    def _set_areas_aside(self, guest: BuiltinGuest) -> None:
        machine, boot = self.machine, self.machine.vcpus[0]
        place = boot.get("rsi") - guest.kernel_base
        info = BootInfo.unpack(machine.memory.read(place, BootInfo.SIZE))
        left = info.nr_pages - PER_CPU_PAGES
        self.areas: int = left * PAGE
        machine.memory.write(place, attrs.evolve(info, nr_pages=left).pack())

    def area(self, number: int) -> int:
        """Physical address of a CPU's areas."""
        return self.areas + number * PER_CPU

    def _write_msr(self, name: str, vcpu: Vcpu) -> None:
        msr, low, high = (vcpu.get(register) & 0xFFFF_FFFF for register in ("rdi", "rsi", "rdx"))
        served = self.machine.served_msrs.get(msr)
        if served is None:
            return  # the processor's own: the instruction does it
        result = 0
        try:
            served.write(vcpu, high << 32 | low)
        except GuestFault:
            result = -5 if name.endswith("_safe") else 0  # -EIO; the plain one only warns
        vcpu.set("rax", result & vcpu.machine.kind.mask)
        vcpu.ret()
