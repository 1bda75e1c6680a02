"""An I/O APIC: 24 inputs, each with an entry that says which message its interrupt becomes.

Source: Intel 82093AA data sheet, 3.1 (the two registers in memory) and 3.2 (identification, version, arbitration and
redirection registers).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs

from pvops_native.devices.bus import WIRE

if TYPE_CHECKING:
    from pvops_native.devices.apic import LocalApic

SELECT, WINDOW = 0x00, 0x10
INPUTS: Final = 24
MASKED, LEVEL, REMOTE_IRR, LOGICAL = 1 << 16, 1 << 15, 1 << 14, 1 << 11
_ID, _VERSION, _ARBITRATION, _REDIRECTION = 0, 1, 2, 0x10
# Version 0x11 with the highest entry's number (82093AA, 3.2.2).
_VERSION_VALUE: Final = (INPUTS - 1) << 16 | 0x11
_READ_ONLY: Final = REMOTE_IRR | 1 << 12
"""Remote IRR, and delivery status, which is always idle."""


@attrs.define
class IoApic:
    """The registers; ``send`` gets delivery mode, vector and targets of each message.

    An active-low input is told its level after inversion, as a chip's wiring would have it.
    """

    send: Callable[[int, int, Callable[[LocalApic], bool]], None] = attrs.field(metadata=WIRE)
    identification: int = 0
    selected: int = 0
    entries: list[int] = attrs.field(factory=lambda: [MASKED] * INPUTS)
    lines: int = 0

    def set_line(self, number: int, *, level: bool) -> None:
        """Drive an input: an edge is sent once, a level as long as it lasts."""
        # An edge counts when the line rises, not for how long it is up.
        rising = level and not self.lines >> number & 1
        self.lines = self.lines & ~(1 << number) | level << number
        if rising or (level and self.entries[number] & LEVEL):
            self._deliver(number)

    def pulse(self, number: int) -> None:
        """A rising edge on an input that then falls again."""
        # Low first: a line that is up already would give no edge.
        self.set_line(number, level=False)
        self.set_line(number, level=True)
        self.set_line(number, level=False)

    def _deliver(self, number: int) -> None:
        entry = self.entries[number]
        # A level is sent once, until its EOI (3.2.4, Remote IRR).
        if entry & MASKED or (entry & LEVEL and entry & REMOTE_IRR):
            return
        if entry & LEVEL:
            self.entries[number] |= REMOTE_IRR
        self.send(entry >> 8 & 7, entry & 0xFF, lambda apic: self._targets(entry, apic))

    def _targets(self, entry: int, apic: LocalApic) -> bool:
        return apic.addressed(entry >> 56, logical=bool(entry & LOGICAL))

    def reaches(self, number: int, apic: LocalApic) -> bool:
        """Whether an input's interrupt would go to a processor now."""
        entry = self.entries[number]
        return not entry & MASKED and self._targets(entry, apic)

    def ended(self, vector: int) -> None:
        """A processor has ended the service of a vector: levels that have it are sent again if they last."""
        for number, entry in enumerate(self.entries):
            # By vector, for that is all that the EOI message carries.
            if entry & (LEVEL | REMOTE_IRR) == LEVEL | REMOTE_IRR and entry & 0xFF == vector:
                self.entries[number] &= ~REMOTE_IRR
                if self.lines >> number & 1:
                    self._deliver(number)

    def read(self, offset: int) -> int:
        """The selector, or the selected register through the window."""
        if offset == SELECT:
            return self.selected
        if offset != WINDOW:
            return 0
        if self.selected >= _REDIRECTION:
            entry = self._entry()
            # Two registers of 32 bits for each entry, the low one first.
            return 0 if entry is None else self.entries[entry] >> 32 * (self.selected & 1) & 0xFFFF_FFFF
        identification = self.identification << 24
        return {_ID: identification, _VERSION: _VERSION_VALUE, _ARBITRATION: identification}.get(self.selected, 0)

    def write(self, offset: int, value: int) -> None:
        """The selector, or the selected register through the window; read-only bits stay."""
        if offset == SELECT:
            self.selected = value & 0xFF
        elif offset == WINDOW and self.selected == _ID:
            self.identification = value >> 24 & 0xF
        elif offset == WINDOW and (number := self._entry()) is not None:
            self._redirect(number, value & 0xFFFF_FFFF)

    def _entry(self) -> int | None:
        """Number of the redirection entry that is selected."""
        # Numbers from 0x10 on, two for each entry.
        number = self.selected - _REDIRECTION >> 1
        return number if 0 <= number < INPUTS else None

    def _redirect(self, number: int, value: int) -> None:
        entry = self.entries[number]
        if self.selected & 1:
            self.entries[number] = entry & 0xFFFF_FFFF | value << 32
            return
        entry = entry & ~(0xFFFF_FFFF & ~_READ_ONLY) | value & ~_READ_ONLY
        # Remote IRR means nothing of an edge-triggered entry.
        self.entries[number] = entry if entry & LEVEL else entry & ~REMOTE_IRR
        # Unmasking a level that is up sends it.
        if entry & LEVEL and self.lines >> number & 1:
            self._deliver(number)
