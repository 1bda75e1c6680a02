"""Where an lguest guest can be stopped for live patching, and how its kernel is entered from outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pvops_lguest.host.segments import GUEST_PL, KERNEL_CS

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_lguest.host.state import HostState


class LguestCallsIn:
    """What live patching asks a platform that is an lguest host: the guest's interrupt flag is in its shared page."""

    state: HostState

    def interruptible(self, vcpu: Vcpu) -> bool:
        """Halted guests have interrupts on; others when ``irq_enabled`` says so, outside of the iret sequence."""
        interrupts, data = self.state.interrupts, self.state.data
        if interrupts.halted:
            return True
        # In that range the word says on while the stack is still the handler's.
        return bool(data and data.irq_enabled) and not interrupts.noirq[0] <= vcpu.rip < interrupts.noirq[1]

    def in_user_mode(self, vcpu: Vcpu) -> bool:
        """Ring 3."""
        return vcpu.cpl == 3

    @contextmanager
    def kernel_mode(self, vcpu: Vcpu) -> Iterator[int]:
        """Ring 1 on the stack that the guest gave for traps; its interrupt flag off meanwhile."""
        data = self.state.data
        enabled = data.irq_enabled if data is not None else 0
        if data is not None:
            # Nothing may interrupt a call that the guest did not make.
            data.irq_enabled = 0
        user = self.in_user_mode(vcpu)
        if user:
            # Segments with the stack: esp1 is only good with ss1.
            vcpu.set_segments(GUEST_PL, KERNEL_CS, self.state.stack.ss1)
        try:
            yield self.state.stack.esp1 if user else vcpu.rsp
        finally:
            if data is not None:
                data.irq_enabled = enabled
