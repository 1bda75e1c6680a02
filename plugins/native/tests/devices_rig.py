"""A clock for devices, and what drives them."""

from __future__ import annotations

import calendar

import attrs
from pvops_native.devices.cmos import Cmos
from pvops_native.devices.uart import Uart

EPOCH = calendar.timegm((2007, 8, 10, 12, 34, 56))


@attrs.define
class Clock:
    ns: int = 0

    def now(self) -> int:
        return self.ns


def cmos(clock: Clock | None = None, epoch: int = EPOCH) -> Cmos:
    return Cmos((clock or Clock()).now, epoch)


@attrs.define
class Line:
    level: bool = False

    def drive(self, level: bool) -> None:  # noqa: FBT001  # a wire has one level and nothing else
        self.level = level


def uart() -> tuple[bytearray, Line, Uart]:
    sent, line = bytearray(), Line()
    return sent, line, Uart(sent.append, line.drive)
