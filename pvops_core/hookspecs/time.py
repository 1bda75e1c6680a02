"""Hooks of struct pv_time_ops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs.markers import hookspec

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu


@hookspec(firstresult=True)
def get_wallclock(cpu: Vcpu) -> int | None:
    """Read the persistent clock; called at boot and on resume.

    Returns:
        unsigned long: seconds since 1970-01-01 UTC, from the machine's virtual clock.

    Native: the CMOS clock.
    """


@hookspec(firstresult=True)
def set_wallclock(cpu: Vcpu, nowtime: int) -> int | None:
    """Set the persistent clock; called every 11 minutes while the kernel's clock is synchronised.

    Args:
        nowtime: unsigned long; seconds since 1970-01-01 UTC.

    Returns:
        int: 0 if set, -1 if it cannot be.
    """


@hookspec(firstresult=True)
def sched_clock(cpu: Vcpu) -> int | None:
    """Read the scheduler's clock; called at every context switch and timestamped message.

    Returns:
        unsigned long long: nanoseconds since an arbitrary start; never goes back on one CPU.

    Native: the time-stamp counter, scaled.
    """


@hookspec(firstresult=True)
def get_cpu_khz(cpu: Vcpu) -> int | None:
    """Find the frequency of the time-stamp counter; called once at boot and after a change of it.

    Returns:
        unsigned long: kHz; 0 if it cannot be found.
    """
