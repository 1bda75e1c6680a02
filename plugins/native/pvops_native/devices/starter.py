"""The processor start register at port 0x608: writing a processor's number there, 32 bits, lets it run.

Not a PC's: start-up messages of the local APIC begin in real mode, which the built-in guest has no code for.
docs/reference/guest.md describes the register.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from pvops_native.devices.bus import WIRE

BASE = 0x608


@attrs.define
class Starter:
    """Collects the four bytes; the last one starts the processor."""

    start: Callable[[int], None] = attrs.field(metadata=WIRE)
    number: int = 0
    ports: tuple[int, ...] = tuple(range(BASE, BASE + 4))

    def read(self, port: int) -> int:
        """The number last written."""
        return self.number >> 8 * (port - BASE) & 0xFF

    def write(self, port: int, value: int) -> None:
        """One byte of the number."""
        shift = 8 * (port - BASE)
        self.number = self.number & ~(0xFF << shift) | value << shift
        # The bus gives the lowest byte first, so the number is whole with the last.
        if shift == 24:
            self.start(self.number)
