"""The MC146818 clock and its memory behind ports 0x70 and 0x71, running on the virtual clock.

Source: Motorola MC146818 data sheet (registers 0 to 13, update in progress 244 us before and 1,984 us during the
update); the century byte 0x32 as PC firmware keeps it. Its alarm and periodic interrupts are not wired.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import attrs

from pvops_native.devices.bus import WIRE

REG_A, REG_B, REG_C, REG_D, CENTURY = 10, 11, 12, 13, 0x32
UIP: Final = 0x80
B_SET, B_BINARY, B_24H = 0x80, 0x04, 0x02
_SECOND: Final = 1_000_000_000
# The data sheet's two spans: UIP rises that long before the update and falls behind it.
_UPDATE: Final = 244_000 + 1_984_000
# Seconds, minutes, hours, day of week, of month, month, year; those between are the alarm's.
_CLOCK_REGISTERS: Final = (0, 2, 4, 6, 7, 8, 9, CENTURY)


def mktime(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int:
    """mktime64(): seconds since 1970 of a Gregorian date, by arithmetic: a clock that is not there must not break it.

    Counting months from March puts the leap day last (the formula is Gauss's; linux/time.h, mktime).
    """
    # As mktime64() of kernel/time/time.c: March first, so that the leap day is the year's last.
    month -= 2
    if month <= 0:
        month, year = month + 12, year - 1
    days = year // 4 - year // 100 + year // 400 + 367 * month // 12 + day + year * 365 - 719_499
    return ((days * 24 + hour) * 60 + minute) * 60 + second


@attrs.define
class Cmos:
    """The clock: ``epoch`` is what its registers mean at virtual time 0, in seconds since 1970 (UTC)."""

    now: Callable[[], int] = attrs.field(metadata=WIRE)
    epoch: int
    index: int = 0
    # 32,768 Hz time base, 1,024 Hz rate: what PC firmware leaves.
    reg_a: int = 0x26
    reg_b: int = B_24H
    held: int | None = None
    memory: dict[int, int] = attrs.field(factory=dict)
    ports: tuple[int, ...] = (0x70, 0x71)

    def seconds(self) -> int:
        """The date in the registers, in seconds since 1970; it stands still while SET is on."""
        return self.epoch + self.now() // _SECOND if self.held is None else self.held

    def read(self, port: int) -> int:
        """The register that port 0x70 selected; 0x70 itself is write-only."""
        if port == 0x70:
            return 0xFF
        if self.index in _CLOCK_REGISTERS:
            return self._encode(self._clock()[self.index])
        if self.index == REG_A:
            # A register that is read during an update is undefined, so drivers wait for UIP to fall.
            updating = self.held is None and self.now() % _SECOND >= _SECOND - _UPDATE
            return self.reg_a | (UIP if updating else 0)
        fixed = {REG_B: self.reg_b, REG_C: 0, REG_D: 0x80}
        return fixed.get(self.index, self.memory.get(self.index, 0))

    def _clock(self) -> dict[int, int]:
        date = time.gmtime(self.seconds())
        values = (
            date.tm_sec,
            date.tm_min,
            date.tm_hour,
            # The chip counts Sunday as 1, struct_time Monday as 0.
            (date.tm_wday + 1) % 7 + 1,
            date.tm_mday,
            date.tm_mon,
            date.tm_year % 100,
            date.tm_year // 100,
        )
        return dict(zip(_CLOCK_REGISTERS, values, strict=True))

    def _encode(self, value: int) -> int:
        afternoon = 0
        # 12-hour mode: bit 7 of the hours says afternoon, and noon and midnight are 12.
        if self.index == 4 and not self.reg_b & B_24H:
            afternoon = 0x80 if value >= 12 else 0
            value = (value - 1) % 12 + 1
        return (value if self.reg_b & B_BINARY else value // 10 % 10 << 4 | value % 10) & 0xFF | afternoon

    def write(self, port: int, value: int) -> None:
        """Selects a register (bit 7 of port 0x70 is the NMI mask) or writes the selected one."""
        if port == 0x70:
            self.index = value & 0x7F
        elif self.index in _CLOCK_REGISTERS:
            self._set_clock(self._decode(value))
        elif self.index == REG_A:
            self.reg_a = value & 0x7F
        elif self.index == REG_B:
            self._set_mode(value)
        elif self.index not in {REG_C, REG_D}:
            self.memory[self.index] = value

    def _decode(self, value: int) -> int:
        afternoon = value & 0x80 if self.index == 4 and not self.reg_b & B_24H else 0
        value = value & 0x7F if self.index == 4 and not self.reg_b & B_24H else value
        number = value if self.reg_b & B_BINARY else (value >> 4) * 10 + (value & 0xF)
        return number % 12 + (12 if afternoon else 0) if self.index == 4 and not self.reg_b & B_24H else number

    def _set_clock(self, value: int) -> None:
        clock = self._clock()
        if self.index == 6:  # the day of the week follows from the date here
            return
        clock[self.index] = value
        # All registers give one date, so setting one is setting that.
        year = clock[CENTURY] * 100 + clock[9]
        self._set_seconds(mktime(year, clock[8], clock[7], clock[4], clock[2], clock[0]))

    def _set_seconds(self, seconds: int) -> None:
        if self.held is None:
            self.epoch = seconds - self.now() // _SECOND
        else:
            self.held = seconds

    def _set_mode(self, value: int) -> None:
        # SET freezes the registers so that they can be written one by one without an update between.
        if value & B_SET and self.held is None:
            self.held = self.seconds()
        elif not value & B_SET and self.held is not None:
            # Time starts again from what was written.
            self.epoch, self.held = self.held - self.now() // _SECOND, None
        self.reg_b = value
