"""A local APIC: registers, priorities, timer and fixed interrupts between processors.

Source: Intel SDM volume 3, chapter 11 (11.4.1 register map, 11.5.4 timer, 11.6 interprocessor interrupts, 11.8
priorities). What a message does to a processor is the platform's affair: NMI, INIT and start-up go there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from pvops_native.devices.bus import WIRE

# Byte offsets of 11.4.1, table 11-1.
ID, VERSION, TPR, PPR, EOI, LDR, DFR, SPURIOUS = 0x20, 0x30, 0x80, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0
ISR, IRR, ESR, ICR_LOW, ICR_HIGH, LVT_TIMER = 0x100, 0x200, 0x280, 0x300, 0x310, 0x320
INITIAL_COUNT, CURRENT_COUNT, DIVIDE = 0x380, 0x390, 0x3E0
LVT_LINT0: Final = 0x350
LVTS: Final = (LVT_TIMER, 0x330, 0x340, LVT_LINT0, 0x360, 0x370)
FIXED, LOWEST, NMI, INIT, STARTUP, EXTINT = 0, 1, 4, 5, 6, 7
"""Delivery modes."""
# Bits of an entry of the local vector table (figure 11-8), and of the spurious-vector register (11.9).
MASKED: Final = 1 << 16
PERIODIC: Final = 1 << 17
ENABLED: Final = 1 << 8
BUS_NS: Final = 10
"""The timer's input clock is 100 MHz."""
_WRITABLE: Final = frozenset({ID, TPR, LDR, DFR, SPURIOUS, ESR, ICR_HIGH, DIVIDE, *LVTS})


def _nothing(_vector: int) -> None:
    """Nobody listens."""


def _reset() -> dict[int, int]:
    # Version 0x14 is an integrated APIC's; its six entries are 5 + 1 (11.4.8). What 11.4.7.1 says of a reset.
    return {VERSION: 0x0005_0014, DFR: 0xFFFF_FFFF, SPURIOUS: 0xFF, **dict.fromkeys(LVTS, MASKED)}


@attrs.define
class LocalApic:
    """The APIC of processor ``number``.

    Attributes:
        number: its identification.
        now: the virtual clock, in nanoseconds.
        send: gets delivery mode, vector and targets of every message it sends.
        ended: told the vector whose service has ended.
    """

    number: int
    now: Callable[[], int] = attrs.field(metadata=WIRE)
    send: Callable[[int, int, Callable[[LocalApic], bool]], None] = attrs.field(metadata=WIRE)
    ended: Callable[[int], None] = attrs.field(metadata=WIRE, default=_nothing)
    registers: dict[int, int] = attrs.field(factory=_reset)
    requested: int = 0
    in_service: int = 0
    started: int | None = None

    def __attrs_post_init__(self) -> None:
        # Bits 24 to 31 (11.4.6).
        self.registers[ID] = self.number << 24
        if self.number == 0:
            self.registers[LVT_LINT0] = EXTINT << 8  # firmware leaves the first processor the 8259s

    def reset(self) -> None:
        """As an INIT message leaves it: everything but the identification (SDM volume 3, 11.4.7.3)."""
        self.registers = _reset() | {ID: self.registers[ID]}
        self.requested = self.in_service = 0
        self.started = None

    @property
    def passes_pic(self) -> bool:
        """Whether the processor gets what the 8259s ask for: LINT0 is in that mode and not masked."""
        # Delivery mode is bits 8 to 10.
        return self.registers[LVT_LINT0] & (MASKED | 7 << 8) == EXTINT << 8

    def addressed(self, destination: int, *, logical: bool) -> bool:
        """Whether a message goes to this one (10.6.2, flat and cluster model)."""
        # Broadcast in both forms (11.6.2.1, 11.6.2.2).
        if destination == 0xFF or not logical:
            return destination in {0xFF, self.registers[ID] >> 24}
        own = self.registers.get(LDR, 0) >> 24
        # DFR all ones is the flat model: a bit for each processor. Else clusters: a number and four bits.
        if self.registers[DFR] >> 28 == 0xF:
            return bool(own & destination)
        return own >> 4 == destination >> 4 and bool(own & destination & 0xF)

    def request(self, vector: int) -> None:
        """An interrupt arrives; a disabled APIC does not take it (SDM volume 3, 11.4.7.2)."""
        # Software disabled: what it has it keeps, and new interrupts it does not take (11.4.7.2).
        if self.registers[SPURIOUS] & ENABLED:
            self.requested |= 1 << vector

    def _priority(self) -> int:
        """The processor-priority register: the task's or, if higher, the class of what is in service."""
        # 11.8.3.1: the higher of the two classes; of the task's own the sub-class counts as well.
        task, service = self.registers.get(TPR, 0), max(self.in_service.bit_length() - 1, 0)
        return task if task >> 4 >= service >> 4 else service & 0xF0

    def pending(self) -> int | None:
        """The vector that the processor would be given now, if any (SDM volume 3, 11.8.3)."""
        best = self.requested.bit_length() - 1
        # Vectors below 16 are illegal (11.5.2), and one of the class in force waits.
        return best if best >= 16 and best >> 4 > self._priority() >> 4 else None

    def acknowledge(self, vector: int) -> None:
        """The processor takes a pending vector, which is in service until EOI is written."""
        self.requested &= ~(1 << vector)
        self.in_service |= 1 << vector

    def read(self, register: int) -> int:
        """A 32-bit register at a byte offset; offsets between registers read as zero."""
        if register == CURRENT_COUNT:
            return self._remaining()
        if register == PPR:
            return self._priority()
        for first, bits in ((ISR, self.in_service), (IRR, self.requested)):
            if first <= register < first + 0x80:
                # 256 bits in eight registers that lie 16 bytes apart: 2 bits a byte.
                return bits >> 2 * (register - first) & 0xFFFF_FFFF
        return self.registers.get(register, 0)

    def write(self, register: int, value: int) -> None:
        """A 32-bit register; writes to read-only ones are lost."""
        if register == EOI:
            # The highest in service is the one that the handler is for (11.8.5).
            vector = self.in_service.bit_length() - 1
            # An EOI without anything in service has no effect.
            if vector >= 0:
                self.in_service &= ~(1 << vector)
                self.ended(vector)
        elif register == INITIAL_COUNT:
            # What the old count still owes is taken before the new one replaces it.
            self.service()
            self.registers[register] = value
            # A count of 0 stops the timer (11.5.4).
            self.started = self.now() if value else None
        elif register == ICR_LOW:
            # Delivery status reads as idle: a message has arrived when the write is done.
            self.registers[register] = value & ~(1 << 12)
            self._interprocessor(value)
        elif register == ESR:
            # Any write clears it, before errors that came since are shown (11.5.3): none are made here.
            self.registers[register] = 0
        elif register in _WRITABLE:
            # The divider or mode may change: the time that has passed counts by the old ones.
            self.service()
            self.registers[register] = value

    def _interprocessor(self, value: int) -> None:
        # ICR: mode in 8 to 10, logical in 11, assert in 14, shorthand in 18 and 19 (figure 11-12).
        mode, destination, shorthand = value >> 8 & 7, self.registers.get(ICR_HIGH, 0) >> 24, value >> 18 & 3
        if mode == INIT and not value & 1 << 14:
            return  # "de-assert" only sets arbitration identifications, which there are none of

        def addressed(apic: LocalApic) -> bool:
            if shorthand:
                # 1 is self, 2 all including self, 3 all but self.
                return (apic is self) == (shorthand == 1) or shorthand == 2
            return apic.addressed(destination, logical=bool(value >> 11 & 1))

        self.send(mode, value & 0xFF, addressed)

    def _period(self) -> int:
        """Nanoseconds of one count."""
        divide = self.registers.get(DIVIDE, 0)
        # Bits 0, 1 and 3 are the code: 0 divides by 2, up to 6 by 128, and 7 by 1 (figure 11-10).
        code = divide & 3 | divide >> 1 & 4
        return BUS_NS << (code + 1 & 7)

    def _remaining(self) -> int:
        initial = self.registers.get(INITIAL_COUNT, 0)
        if self.started is None:
            return 0
        counts = (self.now() - self.started) // self._period()
        periodic = self.registers[LVT_TIMER] & PERIODIC
        # The count is reloaded as it reaches 0, so 0 itself is never read in periodic mode.
        return initial - counts % initial if periodic else max(0, initial - counts)

    def next_event(self) -> int | None:
        """Nanosecond at which the timer runs out, if it runs and its interrupt is not masked."""
        if self.started is None or self.registers[LVT_TIMER] & MASKED:
            return None
        return self.started + self.registers[INITIAL_COUNT] * self._period()

    def service(self) -> None:
        """Takes the timer's interrupt if it has run out; missed periods merge (SDM volume 3, 11.5.4)."""
        if self.started is None:
            return
        span = self.registers[INITIAL_COUNT] * self._period()
        if self.now() < self.started + span:
            return
        timer = self.registers[LVT_TIMER]
        # On the grid of the old start: a late look must not move later periods.
        self.started = self.now() - (self.now() - self.started) % span if timer & PERIODIC else None
        if not timer & MASKED:
            self.request(timer & 0xFF)
