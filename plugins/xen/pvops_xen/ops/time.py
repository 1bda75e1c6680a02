"""pv_time_ops and pv_apic_ops of 2.6: clocks out of Xen's shared pages, and the local APIC that is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.hookspecs import hookimpl
from pvops_xen.hypervisor.scheduling.timers import NS, VCPU_TIME
from pvops_xen.ops.base import XenGroup
from pvops_xen.public import XEN

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

_WALL_CLOCK: Final = XEN["shared_info"].part("wc_sec", "wc_nsec")


class XenTimeOps(XenGroup):
    """Time is vcpu_info.time scaled by the time-stamp counter (arch/x86/xen/time.c, pvclock.c)."""

    def _record(self, cpu: Vcpu) -> tuple[int, ...]:
        """vcpu_info.time, as Xen left it."""
        abi = self.platform.hv.abi
        form = VCPU_TIME.at(abi.bits).form
        return form.unpack(self.env.machine.memory.read(self.info(cpu) + abi.time, form.size))

    def _system_time(self, cpu: Vcpu) -> int:
        """Nanoseconds since the domain started."""
        _version, stamp, system_time, multiplier, shift, _flags = self._record(cpu)
        delta = cpu.insn.rdtsc() - stamp
        scaled = delta << shift if shift >= 0 else delta >> -shift
        return system_time + (scaled * multiplier >> 32)

    @hookimpl
    def sched_clock(self, cpu: Vcpu) -> int:
        """The same clock for scheduling."""
        return self._system_time(cpu)

    @hookimpl
    def get_wallclock(self, cpu: Vcpu) -> int:
        """Seconds of the wall clock's start in shared_info, and system time."""
        hv = self.platform.hv
        base, clock = hv.domain.shared_info, _WALL_CLOCK.at(hv.abi.bits)
        low, nanoseconds = clock.form.unpack(hv.memory.read(base + clock.offset, clock.form.size))
        seconds = low | hv.memory.u32(base + hv.abi.wc_sec_hi) << 32
        nanoseconds += self._system_time(cpu)
        return int(seconds + nanoseconds // NS)

    @hookimpl
    def set_wallclock(self, cpu: Vcpu, nowtime: int) -> int:
        """An unprivileged domain cannot."""
        del cpu, nowtime
        return -1

    @hookimpl
    def get_cpu_khz(self, cpu: Vcpu) -> int:
        """Out of the multiplier: (10^6 << 32) / mul, shifted back."""
        _version, _stamp, _system_time, multiplier, shift, _flags = self._record(cpu)
        khz = (1_000_000 << 32) // multiplier
        return khz << -shift if shift < 0 else khz >> shift

    @hookimpl
    def apic_read(self, cpu: Vcpu) -> int:
        """Nothing is there."""
        del cpu
        return 0
