"""Time: the host writes it into the shared page whenever it delivers an interrupt. And the APIC that is not there.

Source: arch/x86/lguest/boot.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs import hookimpl
from pvops_lguest.host.interrupts import TIMER_IRQ
from pvops_lguest.ops.guest import GuestSide

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

_SECOND = 1_000_000_000
_NS_PER_MS = 1_000_000


class TimeOps(GuestSide):
    """Clocks and the timer."""

    def _time(self) -> tuple[int, int]:
        at = self.data(self._abi.data.time)
        return self._memory.u32(at), self._memory.u32(at + 4)

    @hookimpl
    def time_init(self, cpu: Vcpu) -> None:
        """The timer interrupt may come; it is armed by SET_CLOCKEVENT, one event at a time."""
        del cpu
        blocked = self.data(self._abi.data.blocked_interrupts)
        self._memory.set_u32(blocked, self._memory.u32(blocked) & ~(1 << TIMER_IRQ))

    @hookimpl
    def get_wallclock(self, cpu: Vcpu) -> int:
        """Seconds since 1970, as the host wrote them last."""
        del cpu
        return self._time()[0]

    @hookimpl
    def sched_clock(self, cpu: Vcpu) -> int:
        """Nanoseconds: from the time-stamp counter if the host vouches for it, else as the host wrote them last."""
        # tsc_khz is 0 where the host's counter is not constant (initialize()).
        khz = self._memory.u32(self.data(self._abi.data.tsc_khz))
        if khz:
            # The multiplication first: whole kHz would lose most of the digits.
            return cpu.insn.rdtsc() * _NS_PER_MS // khz
        # No lock: the host writes both words while the guest does not run.
        seconds, nanoseconds = self._time()
        return seconds * _SECOND + nanoseconds

    @hookimpl
    def get_cpu_khz(self, cpu: Vcpu) -> int:
        """Frequency of the time-stamp counter as the host gave it; 0: do not use it."""
        del cpu
        return self._memory.u32(self.data(self._abi.data.tsc_khz))


class ApicOps(GuestSide):
    """There is no local APIC: writes are lost and reads give 0."""

    @hookimpl
    def apic_write(self, cpu: Vcpu, reg: int, v: int) -> None:
        """Lost."""

    @hookimpl
    def apic_write_atomic(self, cpu: Vcpu, reg: int, v: int) -> None:
        """Lost."""

    @hookimpl
    def apic_read(self, cpu: Vcpu, reg: int) -> int:
        """Nothing."""
        del cpu, reg
        return 0
