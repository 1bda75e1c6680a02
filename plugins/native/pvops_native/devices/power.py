"""Switching off and resetting: the ACPI PM1a control register, the keyboard controller and the reset control register.

Source: ACPI specification 4.8.3.2.1 (SLP_EN is bit 13) with QEMU's i440FX placing the register at 0x604; IBM PC/AT
technical reference (8042 command 0xfe pulses the reset line); Intel 82371 data sheet (0xcf9, RST_CPU is bit 2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from pvops_native.devices.bus import WIRE

PM1_CONTROL: Final = 0x604
RESET_CONTROL: Final = 0xCF9
KEYBOARD_CONTROL: Final = 0x64


@attrs.define
class Power:
    """The ways in which the guest ends the run; ``stop`` is given "poweroff", "reboot" or "crash".

    Sleep type 0 is soft-off, as on QEMU's machine; a guest that gives another type says that it gave up.
    """

    stop: Callable[[str], None] = attrs.field(metadata=WIRE)
    pm1a: int = 0
    reset_control: int = 0
    ports: tuple[int, ...] = (KEYBOARD_CONTROL, PM1_CONTROL, PM1_CONTROL + 1, RESET_CONTROL)

    def read(self, port: int) -> int:
        """What was written; the keyboard controller's status is "no data, ready for a command"."""
        values = {0x64: 0, 0x604: self.pm1a & 0xFF, 0x605: self.pm1a >> 8}
        # Only the reset control register is left.
        return values.get(port, self.reset_control)

    def write(self, port: int, value: int) -> None:
        """SLP_EN switches off, 8042 command 0xfe and RST_CPU reset."""
        if port == 0x604:
            self.pm1a = self.pm1a & 0xFF00 | value
        elif port == 0x605:
            self.pm1a = self.pm1a & 0x00FF | (value & 0xDF) << 8  # SLP_EN reads as zero
            if value & 0x20:
                # SLP_TYP 0 is what _S5 names; any other is a state that the tables do not have.
                self.stop("crash" if value & 0x1C else "poweroff")
        elif port == 0xCF9:
            # RST_CPU acts when it is written, and reads as zero.
            self.reset_control = value & 0x0A
            if value & 4:
                self.stop("reboot")
        elif value == 0xFE:
            self.stop("reboot")
