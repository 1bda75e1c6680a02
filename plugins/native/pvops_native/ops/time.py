"""Clocks: arch/i386/kernel/tsc.c, time.c, i8253.c and mach-default/mach_time.h (2.6.23 and 2.6.24).

The wall clock is the CMOS clock, the scheduler's the time-stamp counter calibrated against the 8254, the tick the
8254.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.hookspecs import hookimpl
from pvops_native.devices.cmos import B_BINARY, B_SET, REG_B, mktime
from pvops_native.devices.pit import HZ as PIT_HZ
from pvops_native.ops.base import NativeGroup

if TYPE_CHECKING:
    from pvops_core.backends import Environment
    from pvops_core.machine import Vcpu

TICK_HZ: Final = 100
"""CONFIG_HZ_100: LATCH is the 8254's rate over this, rounded."""
CALIBRATE_HZ: Final = 100
"""The calibration waits for a hundredth of a second."""
_TRIES: Final = 1_000_000
_HALF_HOUR: Final = 30


class NativeTimeOps(NativeGroup):
    """time.* and the setup of clocks.

    Attributes:
        khz: frequency of the time-stamp counter as last calibrated; 0 before.
    """

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self.khz = 0

    @hookimpl
    def time_init(self, cpu: Vcpu) -> None:
        """hpet_time_init without an HPET: setup_pit_timer, then time_init_hook's setup_irq(0)."""
        self._start_tick(cpu)
        # setup_irq(0) unmasks the request line that this arms.
        cpu.insn.out(0x21, cpu.insn.in_(0x21, 1) & 0xFE, 1)

    def _start_tick(self, cpu: Vcpu) -> None:
        """init_pit_timer, CLOCK_EVT_MODE_PERIODIC: counter 0, low byte then high byte, mode 2."""
        # LATCH rounds to the nearest.
        latch = (PIT_HZ + TICK_HZ // 2) // TICK_HZ
        # 0x34: counter 0, both bytes, mode 2 (rate generator), binary.
        cpu.insn.out(0x43, 0x34, 1)
        cpu.insn.out(0x40, latch & 0xFF, 1)
        cpu.insn.out(0x40, latch >> 8, 1)

    @hookimpl
    def get_wallclock(self, cpu: Vcpu) -> int:
        """native_get_wallclock, mach_get_cmos_time: unsigned long, seconds since 1970."""
        fields = self._fields(cpu)
        while fields != (again := self._fields(cpu)):  # the second ended meanwhile
            fields = again
        second, minute, hour, day, month, year = fields
        # mach_get_cmos_time(): two digits, and below 70 they are of this century.
        year += 1900 + (100 if year < 70 else 0)
        return mktime(year, month, day, hour, minute, second)

    def _fields(self, cpu: Vcpu) -> tuple[int, ...]:
        raw = [self._cmos(cpu, register) for register in (0, 2, 4, 7, 8, 9)]
        if self._cmos(cpu, REG_B) & B_BINARY:
            return tuple(raw)
        # BCD is what PC firmware leaves the chip in.
        return tuple((value >> 4) * 10 + (value & 0xF) for value in raw)

    def _cmos(self, cpu: Vcpu, register: int) -> int:
        # Two accesses, under rtc_lock in the kernel; nothing comes between those of one op.
        cpu.insn.out(0x70, register, 1)
        return cpu.insn.in_(0x71, 1)

    def _set_cmos(self, cpu: Vcpu, register: int, value: int) -> None:
        cpu.insn.out(0x70, register, 1)
        cpu.insn.out(0x71, value, 1)

    @hookimpl
    def set_wallclock(self, cpu: Vcpu, nowtime: int) -> int:
        """native_set_wallclock, mach_set_rtc_mmss: sets minutes and seconds only, so as not to mix up time zones.

        Returns int 0, or -1 if the clock is half an hour or more away.
        """
        mode = self._cmos(cpu, REG_B)
        # SET stops updates, so that minutes do not change between reading and writing.
        self._set_cmos(cpu, REG_B, mode | B_SET)
        binary = bool(mode & B_BINARY)
        there = self._cmos(cpu, 2)
        there = there if binary else (there >> 4) * 10 + (there & 0xF)
        second, minute = nowtime % 60, nowtime // 60
        # mach_set_rtc_mmss(): "correct for half hour time zone".
        if (abs(minute - there) + 15) // 30 & 1:
            minute += 30  # a time zone of half hours
        minute %= 60
        # Farther off is a wrong hour, which must be set by hand.
        near = abs(minute - there) < _HALF_HOUR
        if near:
            for register, value in ((0, second), (2, minute)):
                self._set_cmos(cpu, register, value if binary else value // 10 << 4 | value % 10)
        self._set_cmos(cpu, REG_B, mode)
        return 0 if near else -1

    @hookimpl
    def get_cpu_khz(self, cpu: Vcpu) -> int:
        """native_calculate_cpu_khz: unsigned long, cycles of the time-stamp counter in a span of counter 2, in kHz.

        Counter 2 runs once through a hundredth of a second in mode 0 while port 0x61 is polled for its end; 0 if it
        ends at once (no timer there).
        """
        insn = cpu.insn
        latch = (PIT_HZ + CALIBRATE_HZ // 2) // CALIBRATE_HZ
        insn.out(0x61, insn.in_(0x61, 1) & ~2 | 1, 1)  # gate on, speaker off
        # 0xb0: counter 2, both bytes, mode 0, whose OUT rises when the count is over.
        insn.out(0x43, 0xB0, 1)
        insn.out(0x42, latch & 0xFF, 1)
        insn.out(0x42, latch >> 8, 1)
        start = insn.rdtsc()
        polls = 1
        # Bit 5 of port 0x61 is OUT 2.
        while not insn.in_(0x61, 1) & 0x20 and polls < _TRIES:
            polls += 1
        cycles = insn.rdtsc() - start
        # One poll means that the counter was over at once, and the last that it never ended: both are no measure.
        if polls in {1, _TRIES}:
            return 0
        self.khz = cycles * CALIBRATE_HZ // 1000
        return self.khz

    @hookimpl
    def sched_clock(self, cpu: Vcpu) -> int:
        """native_sched_clock: unsigned long long, nanoseconds by the calibrated time-stamp counter (0 without one)."""
        # A kernel calibrates once; a guest that asks before has it done then.
        khz = self.khz or self.get_cpu_khz(cpu)
        return cpu.insn.rdtsc() * 1_000_000 // khz if khz else 0
