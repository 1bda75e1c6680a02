"""Leaving the kernel: iret and sti; sysexit, which are jumped to and do not come back.

Source: arch/i386/kernel/entry.S, native_iret and native_irq_enable_sysexit (2.6.23); Intel SDM volume 2, SYSEXIT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs import hookimpl
from pvops_core.machine import GuestFault
from pvops_core.x86 import GP
from pvops_native.ops.base import NativeGroup
from pvops_native.ops.descriptors import MSR_SYSENTER_CS

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu


class ControlOps(NativeGroup):
    """cpu.iret and cpu.irq_enable_sysexit."""

    @hookimpl
    def iret(self, cpu: Vcpu) -> None:
        """native_iret: the CPU itself pops the frame."""
        cpu.iret()

    @hookimpl
    def irq_enable_sysexit(self, cpu: Vcpu) -> None:
        """native_irq_enable_sysexit: sti; sysexit (to edx with stack ecx, segments by SYSENTER_CS)."""
        # sti holds interrupts back for one instruction, so none comes before user mode.
        cpu.insn.sti()
        selector = cpu.insn.rdmsr(MSR_SYSENTER_CS) & 0xFFFF
        # SDM volume 2, SYSEXIT: #GP(0) at any other level, or if the selector's index is 0.
        if cpu.cpl or not selector & 0xFFFC:
            raise GuestFault("sysexit", vector=GP, error_code=0)
        cpu.rip, cpu.rsp = cpu.get("edx"), cpu.get("ecx")
        # User code and stack are 16 and 24 above SYSENTER_CS's.
        cpu.set_segments(3, selector + 16 | 3, selector + 24 | 3)
