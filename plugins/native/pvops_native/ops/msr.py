"""Model-specific registers: asm/msr.h, native_read_msr_safe and native_write_msr_safe with their exception fixups.

2.6.23 and 2.6.24 have one op each way that reports a fault; 6.1 has a safe pair, which reports, and a plain pair,
whose fault is only logged (arch/x86/mm/extable.c, ex_handler_msr).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.hookspecs import hookimpl
from pvops_core.machine import GuestFault
from pvops_core.machine.run.eventkinds import event_kind
from pvops_core.x86 import GP
from pvops_native.ops.base import NativeGroup

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

_UNCHECKED: Final = event_kind(
    "unchecked-msr",
    "The kernel touched an MSR that is not there, without catching the fault.",
    access="str: read or write",
    msr="int: its number",
)

# errno.h of Linux.
EIO: Final = 5
EFAULT: Final = 14
UNCHECKED: Final = "the warning about a register that is not there"


class MsrOps(NativeGroup):
    """cpu.read_msr and the rest of its family."""

    @hookimpl
    def read_msr(self, cpu: Vcpu, msr: int, err: int) -> int:
        """native_read_msr, native_read_msr_safe: u64.

        2.6 tables pass err: *err becomes 0 or -EFAULT. 6.1 passes none: a fault is logged and 0 is read.
        """
        value, fault = self._read(cpu, msr)
        # One op that reports, in 2.6; where there is a safe one beside it, this one has nobody to report to.
        if "read_msr_safe" not in self.env.layout:
            cpu.set_u32(err, -EFAULT & 0xFFFFFFFF if fault else 0)
        elif fault:
            self.leave(UNCHECKED)
            self._unchecked(cpu, "rdmsr", msr)
        return value

    @hookimpl
    def read_msr_safe(self, cpu: Vcpu, msr: int, err: int, val: int) -> int:
        """native_read_msr_safe: 0 is read where the register is not there.

        6.1 passes err: *err becomes 0 or -EIO, and the value is returned. 7.2 passes val: those two change places.
        """
        value, fault = self._read(cpu, msr)
        # A slot has one of the two pointers, and the other comes as 0.
        if val:
            cpu.set_u64(val, value)
            return -EIO if fault else 0
        cpu.set_u32(err, -EIO & 0xFFFFFFFF if fault else 0)
        return value

    @hookimpl
    def write_msr(self, cpu: Vcpu, msr: int, low: int, high: int) -> int:
        """Native write_msr: int, 0 or -EFAULT, in the 2.6 tables; void in 6.1, a fault is logged."""
        fault = self._write(cpu, msr, low, high)
        if fault and "write_msr_safe" in self.env.layout:
            self.leave(UNCHECKED)
            self._unchecked(cpu, "wrmsr", msr)
        return -EFAULT if fault else 0

    @hookimpl
    def write_msr_safe(self, cpu: Vcpu, msr: int, low: int, high: int) -> int:
        """native_write_msr_safe (6.1): int, 0 or -EIO."""
        return -EIO if self._write(cpu, msr, low, high) else 0

    def _read(self, cpu: Vcpu, msr: int) -> tuple[int, bool]:
        try:
            return cpu.insn.rdmsr(msr), False
        except GuestFault as fault:
            # Only the fault that says "not there" has a fixup; any other is the guest's.
            if fault.vector != GP:
                raise
            return 0, True

    def _write(self, cpu: Vcpu, msr: int, low: int, high: int) -> bool:
        try:
            # wrmsr takes edx:eax, and eax is 32 bits of a long here.
            cpu.insn.wrmsr(msr, high << 32 | low & 0xFFFFFFFF)
        except GuestFault as fault:
            if fault.vector != GP:
                raise
            return True
        return False

    def _unchecked(self, cpu: Vcpu, access: str, msr: int) -> None:
        self.env.machine.log.record(_UNCHECKED, vcpu=cpu.index, access=access, msr=msr)
