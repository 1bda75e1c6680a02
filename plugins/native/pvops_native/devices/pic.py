"""Two 8259A interrupt controllers, cascaded as in a PC/AT.

Source: Intel 8259A data sheet (initialisation and operation command words, fully nested mode, rotation, special
mask, poll); Intel 82371 (PIIX) data sheet for the edge/level control registers at 0x4d0 and 0x4d1.
"""

from __future__ import annotations

import attrs

CASCADE = 2
SPURIOUS = 7
# One below the lowest priority, so that comparisons need no case of their own.
_NONE = 8


@attrs.define
class Chip:
    """One 8259A. Every register is 8 bits, bit n for request line n (data sheet)."""

    lines: int = 0
    irr: int = 0
    isr: int = 0
    imr: int = 0xFF
    elcr: int = 0
    base: int = 0
    lowest: int = 7
    step: int = 0
    single: bool = False
    wants_icw4: bool = False
    auto_eoi: bool = False
    rotate_on_auto_eoi: bool = False
    fully_nested_special: bool = False
    special_mask: bool = False
    reads_isr: bool = False
    poll: bool = False

    def set_line(self, line: int, *, level: bool) -> None:
        """Drives request line 0..7: a rising edge is latched, a level-triggered line is followed."""
        bit = 1 << line
        if level:
            # A level follows its line; an edge is latched until it is acknowledged.
            if self.elcr & bit or not self.lines & bit:
                self.irr |= bit
            self.lines |= bit
        else:
            self.lines &= ~bit
            if self.elcr & bit:
                self.irr &= ~bit

    def _rank(self, mask: int) -> int:
        """Priority (0 is highest) of the best line in ``mask``; 8 if it is empty."""
        for rank in range(8):
            # Priorities rotate: the line after the lowest one is the highest.
            if mask >> (rank + self.lowest + 1 & 7) & 1:
                return rank
        return _NONE

    def pending(self) -> int | None:
        """The line that would be acknowledged now, or None: unmasked and above everything in service."""
        requests = self.irr & ~self.imr
        if not requests:
            return None
        rank = self._rank(requests)
        # Special mask mode: a line in service that is masked no longer holds others back.
        in_service = self.isr & ~self.imr if self.special_mask else self.isr
        # Special fully nested mode: a second request of the slave passes the first, for it may be a higher line of
        # the slave.
        if self.fully_nested_special:
            in_service &= ~(1 << CASCADE)
        if rank >= self._rank(in_service):
            return None
        return rank + self.lowest + 1 & 7

    def acknowledge(self) -> int:
        """The INTA cycle: moves the best line into service and returns it; line 7, not in service, if none is left."""
        line = self.pending()
        # The request went away between INTR and INTA; the CPU needs a vector nevertheless.
        if line is None:
            return SPURIOUS
        # A level stays requested as long as the line is up.
        if not self.elcr >> line & 1:
            self.irr &= ~(1 << line)
        if not self.auto_eoi:
            self.isr |= 1 << line
        elif self.rotate_on_auto_eoi:
            self.lowest = line
        return line

    def read(self, a0: int) -> int:
        """The mask at A0 = 1; at A0 = 0 the request or in-service register, or the answer to a poll."""
        if self.poll:
            # The read after a poll command stands for INTA.
            self.poll = False
            found = self.pending() is not None
            return self.acknowledge() | 0x80 if found else 0
        if a0:
            return self.imr
        return self.isr if self.reads_isr else self.irr

    def write(self, a0: int, value: int) -> None:
        """Takes a command word: ICW1, OCW2 or OCW3 at A0 = 0; ICW2 to ICW4 or OCW1 at A0 = 1."""
        if a0:
            self._write_data(value)
        elif value & 0x10:
            self._icw1(value)
        elif value & 0x08:
            self._ocw3(value)
        else:
            self._ocw2(value >> 5, value & 7)

    def _icw1(self, value: int) -> None:
        # ICW1 clears mask and edges, puts line 7 last and resets special mask mode and the status read.
        self.imr = self.isr = 0
        self.irr = self.lines & self.elcr
        self.lowest = 7
        self.special_mask = self.reads_isr = self.poll = False
        self.auto_eoi = self.rotate_on_auto_eoi = self.fully_nested_special = False
        self.single = bool(value & 2)
        self.wants_icw4 = bool(value & 1)
        # ICW2 comes next; ICW3 only for cascaded chips, ICW4 only if bit 0 asks for it.
        self.step = 2

    def _write_data(self, value: int) -> None:
        if self.step == 0:
            self.imr = value
        elif self.step == 2:
            # The low three bits are the line's.
            self.base = value & 0xF8
            self.step = 3 if not self.single else 4 if self.wants_icw4 else 0
        elif self.step == 3:  # ICW3 says where the cascade is; a PC's is wired
            self.step = 4 if self.wants_icw4 else 0
        else:
            self.fully_nested_special = bool(value & 0x10)
            self.auto_eoi = bool(value & 2)
            self.step = 0

    def _ocw3(self, value: int) -> None:
        # Bits with an "enable" beside them: 0 there leaves the mode alone.
        if value & 4:
            self.poll = True
        if value & 2:
            self.reads_isr = bool(value & 1)
        if value & 0x40:
            self.special_mask = bool(value & 0x20)

    def _ocw2(self, command: int, level: int) -> None:
        # Rotate in automatic EOI: set by 100, cleared by 000.
        if command in (0, 4):
            self.rotate_on_auto_eoi = command == 4
        elif command == 6:
            self.lowest = level
        elif command != 2:
            self._end_of_interrupt(rotate=command >= 5, line=level if command in (3, 7) else None)

    def _end_of_interrupt(self, *, rotate: bool, line: int | None) -> None:
        if line is None:
            rank = self._rank(self.isr)
            # Nothing in service: the command has no effect.
            if rank == _NONE:
                return
            line = rank + self.lowest + 1 & 7
        self.isr &= ~(1 << line)
        if rotate:
            self.lowest = line


@attrs.define
class PicPair:
    """Master at 0x20, slave at 0xa0 on the master's line 2. Before initialisation every line is masked."""

    master: Chip = attrs.field(factory=Chip)
    slave: Chip = attrs.field(factory=Chip)
    ports: tuple[int, ...] = (0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1)

    def set_line(self, irq: int, *, level: bool) -> None:
        """Drives ISA request line 0..15 (2 is the cascade and cannot be driven)."""
        if irq < 8:
            self.master.set_line(irq, level=level)
        else:
            self.slave.set_line(irq - 8, level=level)
            self._cascade()

    def pulse(self, irq: int) -> None:
        """A rising edge on a line, whatever its level was."""
        self.set_line(irq, level=False)
        self.set_line(irq, level=True)

    def _cascade(self) -> None:
        # The slave's INT output is the master's line 2.
        level = self.slave.pending() is not None
        self.master.set_line(CASCADE, level=level)
        # The slave's request went away with no INTA: an edge would stay latched and be spurious.
        if not level:
            self.master.irr &= ~(1 << CASCADE)

    def interrupting(self) -> bool:
        """Whether the INTR line to the CPU is high."""
        return self.master.pending() is not None

    def masked(self, irq: int) -> bool:
        """Whether the mask register of the chip holds a request on ``irq`` back."""
        chip, line = (self.master, irq) if irq < 8 else (self.slave, irq - 8)
        return bool(chip.imr >> line & 1)

    def deliverable(self, irq: int) -> bool:
        """Whether a request on ``irq`` would raise INTR now (not masked, nothing above it in service)."""
        chip, line = (self.master, irq) if irq < 8 else (self.slave, irq - 8)
        # On copies: asking must not change what is asked about.
        probe = attrs.evolve(self, master=attrs.evolve(self.master), slave=attrs.evolve(self.slave))
        if chip.imr >> line & 1:
            return False
        probe.pulse(irq)
        return probe.interrupting()

    def acknowledge(self) -> int:
        """The two INTA cycles: returns the vector that the CPU is given."""
        # The master says which chip, then the slave says which line.
        line = self.master.acknowledge()
        if line != CASCADE:
            return self.master.base + line
        line = self.slave.acknowledge()
        self._cascade()
        return self.slave.base + line

    def read(self, port: int) -> int:
        """The byte a chip drives, or an edge/level register."""
        if port in (0x4D0, 0x4D1):
            return (self.master if port == 0x4D0 else self.slave).elcr
        # Both chips decode A0 alone.
        chip = self.master if port < 0x80 else self.slave
        value = chip.read(port & 1)
        self._cascade()
        return value

    def write(self, port: int, value: int) -> None:
        """A command byte for one chip; lines 0, 1, 2, 8 and 13 stay edge-triggered in the edge/level registers."""
        if port == 0x4D0:
            # The timer's, keyboard's and cascade's lines, and 8 and 13, are edges in every PC (82371).
            self.master.elcr = value & 0xF8
        elif port == 0x4D1:
            self.slave.elcr = value & 0xDE
        else:
            (self.master if port < 0x80 else self.slave).write(port & 1, value)
        self._cascade()
