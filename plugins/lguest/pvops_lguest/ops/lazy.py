"""Lazy modes: while one is on, calls that may wait go into the ring; leaving it has them done.

Source: lguest_lazy_mode (2.6.23), lguest_leave_lazy_mode (2.6.24).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs import hookimpl
from pvops_lguest.host.abi import Call
from pvops_lguest.ops.guest import LAZY_CPU, LAZY_FLUSH, LAZY_MMU, LAZY_NONE, GuestSide

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu


class LazyOps(GuestSide):
    """Both generations' ways into and out of a lazy mode."""

    def _leave(self, cpu: Vcpu) -> None:
        self._variables.lazy_mode = LAZY_NONE
        self.hcall(cpu, Call.FLUSH_ASYNC)

    @hookimpl
    def set_lazy_mode(self, cpu: Vcpu, mode: int) -> None:
        """Enter (1 MMU, 2 CPU), leave (0) or flush (3) a lazy mode; flushing outside of one does nothing."""
        if mode == LAZY_NONE:
            self._leave(cpu)
        elif mode != LAZY_FLUSH:
            self._variables.lazy_mode = mode
        elif self._variables.lazy_mode != LAZY_NONE:
            self.hcall(cpu, Call.FLUSH_ASYNC)

    @hookimpl
    def mmu_lazy_mode_enter(self, cpu: Vcpu) -> None:
        """Begin a run of page-table updates."""
        del cpu
        self._variables.lazy_mode = LAZY_MMU

    @hookimpl
    def mmu_lazy_mode_leave(self, cpu: Vcpu) -> None:
        """End it, and have the ring emptied."""
        self._leave(cpu)

    @hookimpl
    def cpu_lazy_mode_enter(self, cpu: Vcpu) -> None:
        """Begin a context switch."""
        del cpu
        self._variables.lazy_mode = LAZY_CPU

    @hookimpl
    def cpu_lazy_mode_leave(self, cpu: Vcpu) -> None:
        """End it, and have the ring emptied."""
        self._leave(cpu)
