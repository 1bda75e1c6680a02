"""The local APIC's registers: arch/i386/kernel/apic.c and asm-i386/apic.h (2.6.23), native_apic_read and more.

The kernel reaches them at a fixed virtual address of the page 0xfee00000. The machine has memory only, so these ops
go to the platform's model of that page; where the platform has none nothing answers there: reads are all ones,
writes are lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.hookspecs import hookimpl
from pvops_native.devices.apic import LVT_TIMER, MASKED, LocalApic
from pvops_native.ops.base import NativeGroup

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

ALL_ONES: Final = 0xFFFFFFFF
# LOCAL_TIMER_VECTOR of mach-default/irq_vectors.h.
LOCAL_TIMER_VECTOR: Final = 0xEF


class NativeApicOps(NativeGroup):
    """apic.* of the 2.6 tables with CONFIG_X86_LOCAL_APIC."""

    def _apic(self, cpu: Vcpu) -> LocalApic | None:
        # The platform may be a hypervisor's, whose guest has no APIC of its own.
        apics = getattr(self.env.platform, "apics", ())
        return apics[cpu.index] if apics else None

    @hookimpl
    def apic_read(self, cpu: Vcpu, reg: int) -> int:
        """native_apic_read: unsigned long, the 32-bit register at offset ``reg`` of the APIC's page."""
        apic = self._apic(cpu)
        return ALL_ONES if apic is None else apic.read(reg)

    @hookimpl
    def apic_write(self, cpu: Vcpu, reg: int, v: int) -> None:
        """native_apic_write: a 32-bit store."""
        apic = self._apic(cpu)
        if apic is not None:
            apic.write(reg, v & ALL_ONES)

    @hookimpl
    def apic_write_atomic(self, cpu: Vcpu, reg: int, v: int) -> None:
        """native_apic_write_atomic: the same store by xchg."""
        # The exchange was a workaround for a Pentium erratum, and means nothing to a model.
        self.apic_write(cpu, reg, v)

    @hookimpl
    def setup_boot_clock(self, cpu: Vcpu) -> None:
        """setup_boot_APIC_clock with the local timer not in use: its entry stays masked, the 8254 ticks."""
        self.apic_write(cpu, LVT_TIMER, MASKED | LOCAL_TIMER_VECTOR)

    @hookimpl
    def setup_secondary_clock(self, cpu: Vcpu) -> None:
        """setup_secondary_APIC_clock: the same on another processor."""
        self.apic_write(cpu, LVT_TIMER, MASKED | LOCAL_TIMER_VECTOR)
