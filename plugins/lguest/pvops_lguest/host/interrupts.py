"""Virtual interrupts and the guest's clock event.

Source: drivers/lguest/interrupts_and_traps.c (maybe_do_interrupt, guest_set_clockevent).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pvops_lguest.host.data import INTERRUPT_FLAG
from pvops_lguest.host.traps import FIRST_EXTERNAL_VECTOR, Gate

if TYPE_CHECKING:
    from pvops_lguest.host.data import LguestData
    from pvops_lguest.host.traps import Traps

TIMER_IRQ = 0


class InterruptState(NamedTuple):
    """Interrupts that wait, a bit each, and the attributes of :class:`Interrupts`."""

    pending: int
    noirq: tuple[int, int]
    halted: bool
    deadline: int | None


class Interrupts:
    """Which interrupts wait (irqs_pending), when the timer's is due, and whether the guest sleeps until one comes.

    Attributes:
        noirq: first and last-but-one address of the code that is never interrupted.
        halted: the guest asked to sleep (HALT).
        deadline: virtual time in nanoseconds at which the timer interrupt is due; None when it is off.
    """

    def __init__(self, traps: Traps) -> None:
        self._traps = traps
        self._pending = 0
        self.noirq = (0, 0)
        self.halted = False
        self.deadline: int | None = None

    def set_clockevent(self, now: int, delta: int) -> None:
        """guest_set_clockevent(): the timer interrupt in ``delta`` nanoseconds; 0 turns it off."""
        # One shot: the guest sets the next one from its handler (lguest_clockevent_set_next_event()).
        self.deadline = now + delta if delta else None

    def tick(self, now: int) -> None:
        """Raise the timer interrupt if it is due."""
        if self.deadline is not None and self.deadline <= now:
            # Before it is raised: an event fires once.
            self.deadline = None
            self.raise_irq(TIMER_IRQ)

    def raise_irq(self, irq: int) -> None:
        """set_interrupt(): make interrupt ``irq`` (0 to 31) wait for delivery."""
        self._pending |= 1 << irq

    def next_irq(self, data: LguestData) -> int | None:
        """The interrupt to deliver first: the lowest that waits and is not blocked."""
        ready = self._pending & ~data.blocked_interrupts
        # The lowest bit that is set: x & -x. The order is that of find_first_bit().
        return (ready & -ready).bit_length() - 1 if ready else None

    def ready(self, data: LguestData) -> bool:
        """Whether the guest takes an interrupt when it is next entered, unless it is where it never does."""
        return self._pending != 0 and self.next_irq(data) is not None and (self.halted or bool(data.irq_enabled))

    def take(self, data: LguestData, eip: int) -> Gate | None:
        """The handler to enter now, if the guest can take an interrupt at ``eip`` (maybe_do_interrupt()).

        Wakes a halted guest, which then has interrupts on. An interrupt without a handler keeps waiting.
        """
        irq = self.next_irq(data)
        # In [noirq_start, noirq_end) lguest_iret has put irq_enabled back but not left the handler's stack yet.
        if irq is None or self.noirq[0] <= eip < self.noirq[1]:
            return None
        if self.halted:
            # A halted guest had interrupts on, or it would never wake (maybe_do_interrupt()).
            data.irq_enabled = INTERRUPT_FLAG
            self.halted = False
        elif not data.irq_enabled:
            # The guest is told, so that its irq_enable() comes to the host at once for what waits (from 2.6.31 on).
            data.set_irq_pending(INTERRUPT_FLAG)
            return None
        gate = self._traps.gate(FIRST_EXTERNAL_VECTOR + irq)
        # An interrupt without a gate waits: the guest's start has not set it up yet.
        if gate is not None:
            self._pending &= ~(1 << irq)
        # Only when no other waits: the guest would not ask again otherwise.
        if self.next_irq(data) is None:
            data.set_irq_pending(0)
        return gate

    def save(self) -> InterruptState:
        """State for a snapshot."""
        return InterruptState(self._pending, self.noirq, self.halted, self.deadline)

    def load(self, state: InterruptState) -> None:
        """Go back to what :meth:`save` gave."""
        self._pending, self.noirq, self.halted, self.deadline = state
