"""The fixed ACPI registers beside the power control: the PM1a event block and the power management timer.

Source: ACPI specification 6.4, 4.8.3.1 (PM1 event registers; the machine has no event) and 4.8.3.3 (a 3.579545 MHz
counter, here of 32 bits).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from pvops_native.devices.bus import WIRE

PM1_EVENT: Final = 0x600
PM_TIMER: Final = 0x620
TIMER_HZ: Final = 3_579_545
_SECOND: Final = 1_000_000_000


@attrs.define
class AcpiRegisters:
    """Status (always clear), enables (kept, without effect) and the timer."""

    now: Callable[[], int] = attrs.field(metadata=WIRE)
    enables: int = 0
    ports: tuple[int, ...] = (*range(PM1_EVENT, PM1_EVENT + 4), *range(PM_TIMER, PM_TIMER + 4))

    def read(self, port: int) -> int:
        """One byte of a register."""
        if port >= PM_TIMER:
            # Multiplied first: whole ticks in a nanosecond would be none.
            return self.now() * TIMER_HZ // _SECOND >> 8 * (port - PM_TIMER) & 0xFF
        # Status is the block's first half, enables its second (ACPI 4.8.3.1).
        return self.enables >> 8 * (port - PM1_EVENT - 2) & 0xFF if port >= PM1_EVENT + 2 else 0

    def write(self, port: int, value: int) -> None:
        """One byte of the enables; the rest is read-only or cleared by writing, which is clear already."""
        shift = 8 * (port - PM1_EVENT - 2)
        # Shifts of 0 and 8 are the enables' bytes; less is the status, more the timer.
        if 0 <= shift <= 8:
            self.enables = self.enables & ~(0xFF << shift) | value << shift
