"""Interrupt ops: the interrupt flag is a word in the shared page, so most are one memory access.

Source: drivers/lguest/lguest.c, lguest_asm.S.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs import hookimpl
from pvops_lguest.host.abi import Call
from pvops_lguest.host.data import INTERRUPT_FLAG
from pvops_lguest.ops.guest import GuestSide

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

_EFLAGS_IN_FRAME = 8


class IrqOps(GuestSide):
    """save_fl and friends, halting, and the way back from a trap."""

    def _irq_enabled(self) -> int:
        return self.data(self._abi.data.irq_enabled)

    @hookimpl
    def save_fl(self, cpu: Vcpu) -> int:
        """The word that stands for the interrupt flag: 0x200 or 0."""
        del cpu
        return self._memory.u32(self._irq_enabled())

    @hookimpl
    def restore_fl(self, cpu: Vcpu, flags: int) -> None:
        """Put back what save_fl gave; the host looks at it when it next enters the guest."""
        del cpu
        self._memory.set_u32(self._irq_enabled(), flags)

    @hookimpl
    def irq_disable(self, cpu: Vcpu) -> None:
        """Clear the word."""
        del cpu
        self._memory.set_u32(self._irq_enabled(), 0)

    @hookimpl
    def irq_enable(self, cpu: Vcpu) -> None:
        """Set the word to what the flag is in eflags."""
        del cpu
        self._memory.set_u32(self._irq_enabled(), INTERRUPT_FLAG)

    @hookimpl
    def safe_halt(self, cpu: Vcpu) -> None:
        """HALT: the host turns interrupts on when one comes."""
        self.hcall(cpu, Call.HALT)

    @hookimpl
    def init_IRQ(self, cpu: Vcpu) -> None:  # noqa: N802 - the kernel's name
        """Every interrupt but the timer may come: unmasking is clearing a bit of the shared page.

        The gates are the guest's own, made by its trap initialisation; irq n is vector 0x20 + n.
        """
        del cpu
        blocked = self.data(self._abi.data.blocked_interrupts)
        # Bit 0 stays: the timer's is unmasked by time_init().
        self._memory.set_u32(blocked, self._memory.u32(blocked) & 1)

    @hookimpl
    def iret(self, cpu: Vcpu) -> None:
        """Return by the frame on the stack, and take the interrupt flag from it into the shared page.

        The kernel's own has a window between the two where the host must not deliver (noirq_start to
        noirq_end); here nothing can come between.
        """
        # Before the frame is gone: eflags lies above EIP and CS.
        eflags = self.u32(cpu, (cpu.rsp + _EFLAGS_IN_FRAME) & 0xFFFFFFFF)
        self.touching(cpu.iret)
        # After the return, where lguest_iret writes it before: no interrupt comes between in either.
        self._memory.set_u32(self._irq_enabled(), eflags & INTERRUPT_FLAG)
