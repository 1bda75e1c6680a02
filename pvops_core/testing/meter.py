"""Makes calls in a session and says what each did: what stands behind the fixtures ``call`` and ``kernel``."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from pvops_core.testing.changes import GuestFrames, StateDiff
from pvops_core.testing.effect import Effect, EffectCounter
from pvops_core.x86 import PF

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.session import Session
    from pvops_core.session.callee import Callee


class Meter:
    """Makes calls in one session.

    Args:
        session: the session.

    Attributes:
        calls: finds ops and functions.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._frames = GuestFrames(session)
        self.calls = session.calls

    def measure(self, cpu: Vcpu, callee: Callee, *, interrupts: bool, max_ns: int) -> Effect:
        """Make a call.

        Args:
            cpu: the vCPU that calls.
            callee: what is called.
            interrupts: whether interrupts are delivered and other vCPUs run meanwhile. Without, the guest's own ops
                have switched interrupts off on this vCPU, which runs alone; what arrives waits until the machine runs
                again, and a function that waits for either does not come back.
            max_ns: virtual time that it may take.

        Raises:
            UsageError: the machine is running.
            CallError: it did not come back; the machine stands where that was noticed.
            GuestFault: the stack that the vCPU stands on cannot be written.
        """
        stack = cpu.rsp
        with nullcontext() if interrupts else self.calls.quiet(cpu), self.calls.standing(cpu, callee) as call:
            look, counter = StateDiff(self._session, cpu, self._frames, stack), EffectCounter(self._session)
            try:
                call.make(alone=not interrupts, max_ns=max_ns)
            finally:
                counter.close()
            lost = callee.lost(self._session.machine.kind.bits)
            if any(fault.vector == PF for fault in call.faults):
                lost |= {"cr2"}  # of a fault that the platform dealt with, so that nobody else will look there
            changes = look.changes(call.cpu, lost=lost)
            return counter.effect(callee.what, callee.result(call.cpu), changes, tuple(call.faults))
