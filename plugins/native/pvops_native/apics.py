"""The APICs' registers in memory (Intel SDM volume 3, 11.4.1; 82093AA data sheet)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.machine.cpu.model.msrs import APIC_DEFAULT_BASE
from pvops_native.devices.apic import ICR_LOW

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine import Machine, Vcpu
    from pvops_native.board import Board

# Where both are after a reset (SDM volume 3, 11.4.4; for the other the 82093AA's data sheet).
LOCAL: Final = APIC_DEFAULT_BASE
IO: Final = 0xFEC0_0000
SIZE: Final = 0x1000
_REGISTER: Final = 16
"""Each register is 32 bits wide at a place of 128."""


@attrs.frozen
class LocalRegisters:
    """Each processor sees its own local APIC at one address."""

    board: Board
    written: Callable[[Vcpu], None]

    def load(self, vcpu: Vcpu, offset: int, size: int) -> int:
        """A register, or part of one."""
        value = self.board.apics[vcpu.index].read(offset & -_REGISTER)
        return value >> 8 * (offset % _REGISTER) & (1 << 8 * size) - 1

    def store(self, vcpu: Vcpu, offset: int, size: int, value: int) -> None:
        """A register; accesses that are not 32 bits at its place are undefined (10.4.1), and lost here."""
        # A write at another place would change bits that the guest did not name.
        if offset % _REGISTER == 0 and size == 4:
            self.board.apics[vcpu.index].write(offset, value)
            # The timer may have been set, or an interrupt let through.
            self.written(vcpu)
            if offset == ICR_LOW:
                vcpu.cut_short()  # whoever has sent a message is likely to wait for the other now


@attrs.frozen
class IoRegisters:
    """All processors see one I/O APIC."""

    board: Board
    written: Callable[[Vcpu], None]

    def load(self, vcpu: Vcpu, offset: int, size: int) -> int:
        """The selector or the window."""
        del vcpu
        return self.board.ioapic.read(offset) & (1 << 8 * size) - 1

    def store(self, vcpu: Vcpu, offset: int, size: int, value: int) -> None:
        """The selector or the window."""
        del size
        self.board.ioapic.write(offset, value)
        self.written(vcpu)


def map_registers(machine: Machine, board: Board, written: Callable[[Vcpu], None]) -> None:
    """Put the registers where processors look for them; ``written`` is told who has written to one."""
    machine.map_device(LOCAL, SIZE, LocalRegisters(board, written))
    machine.map_device(IO, SIZE, IoRegisters(board, written))
