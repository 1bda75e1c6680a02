"""pv_time_ops and pv_apic_ops of 2.6: clocks out of Xen's shared pages, and the local APIC that is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.hookspecs import hookimpl
from pvops_xen.hypervisor.scheduling.timers import NS
from pvops_xen.ops.base import XenGroup

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

_TIME: Final = 32


class XenTimeOps(XenGroup):
    """Time is vcpu_info.time scaled by the time-stamp counter (arch/x86/xen/time.c, pvclock.c)."""

    def _system_time(self, cpu: Vcpu) -> int:
        """Nanoseconds since the domain started."""
        memory, base = self.env.machine.memory, self.info(cpu) + _TIME
        delta = cpu.insn.rdtsc() - memory.u64(base + 8)
        shift = memory.u8(base + 28)
        shift = shift - 256 if shift & 0x80 else shift
        scaled = delta << shift if shift >= 0 else delta >> -shift
        return memory.u64(base + 16) + (scaled * memory.u32(base + 24) >> 32)

    @hookimpl
    def sched_clock(self, cpu: Vcpu) -> int:
        """The same clock for scheduling."""
        return self._system_time(cpu)

    @hookimpl
    def get_wallclock(self, cpu: Vcpu) -> int:
        """Seconds of the wall clock's start in shared_info, and system time."""
        hv = self.platform.hv
        base = hv.domain.shared_info
        seconds = hv.memory.u32(base + hv.abi.wc + 4) | hv.memory.u32(base + hv.abi.wc_sec_hi) << 32
        nanoseconds = hv.memory.u32(base + hv.abi.wc + 8) + self._system_time(cpu)
        return seconds + nanoseconds // NS

    @hookimpl
    def set_wallclock(self, cpu: Vcpu, nowtime: int) -> int:
        """An unprivileged domain cannot."""
        del cpu, nowtime
        return -1

    @hookimpl
    def get_cpu_khz(self, cpu: Vcpu) -> int:
        """Out of the multiplier: (10^6 << 32) / mul, shifted back."""
        memory, base = self.env.machine.memory, self.info(cpu) + _TIME
        khz = (1_000_000 << 32) // memory.u32(base + 24)
        shift = memory.u8(base + 28)
        return khz << (256 - shift) if shift & 0x80 else khz >> shift

    @hookimpl
    def apic_read(self, cpu: Vcpu) -> int:
        """Nothing is there."""
        del cpu
        return 0
