"""The 8254 interval timer on the virtual clock: three counters at 1.193182 MHz, and the speaker port that gates one.

Source: Intel 82C54 data sheet (control word, read-back command, modes 0 to 5); IBM PC/AT technical reference for
port 0x61. A count written now is loaded at the next clock pulse, so mode 0 lasts N + 1 pulses, as on the chip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from pvops_native.devices.bus import WIRE

HZ: Final = 1_193_182
_SECOND: Final = 1_000_000_000
# Modes whose count is reloaded by itself.
_PERIODIC: Final = (2, 3)


def ticks_at(ns: int) -> int:
    """Clock pulses of the 8254 since time 0, at ``ns`` nanoseconds."""
    # Rounded down here and up below, so that an event's nanosecond is never before its tick.
    return ns * HZ // _SECOND


def ns_of(tick: int) -> int:
    """The first nanosecond at which `ticks_at` reaches ``tick``."""
    return -(-tick * _SECOND // HZ)


def _from_bcd(value: int) -> int:
    return sum((value >> 4 * digit & 0xF) * 10**digit for digit in range(4))


def _to_bcd(value: int) -> int:
    return sum(value // 10**digit % 10 << 4 * digit for digit in range(4))


@attrs.define
class Counter:
    """One counter. Times are in clock pulses ("ticks"); ``start`` is the pulse that loaded the count."""

    mode: int = 0
    access: int = 3
    bcd: bool = False
    gate: bool = True
    reload: int = 0x10000
    start: int | None = None
    frozen: int | None = None
    next_reload: int | None = None
    swap: int = 0
    low_byte: int | None = None
    read_high: bool = False
    latched: int | None = None
    latched_status: int | None = None
    by_firmware: bool = True
    """It was not given a control word yet. Firmware loads the counters, and kernels count on that: one without a
    time-stamp counter waits, for the random numbers of KASLR, until the null count is gone."""

    def control(self, value: int, tick: int) -> None:
        """Takes a control word: access 0 latches the count, everything else sets mode and access and stops counting."""
        # A second latch before the first was read is ignored.
        if value >> 4 & 3 == 0:
            if self.latched is None:
                self.latched = self._raw_count(tick)
            return
        self.by_firmware = False
        self.access = value >> 4 & 3
        mode = value >> 1 & 7
        # Modes 6 and 7 are 2 and 3 again: the bit is "don't care".
        self.mode = mode - 4 if mode >= 6 else mode
        self.bcd = bool(value & 1)
        # A control word stops the counter until a count is written.
        self.start = self.frozen = self.next_reload = self.low_byte = self.latched = self.latched_status = None
        self.read_high = False

    def write(self, value: int, tick: int) -> None:
        """Takes one byte of the count; the last one loads it."""
        if self.access == 1:
            self._load(value, tick)
        elif self.access == 2:
            self._load(value << 8, tick)
        elif self.low_byte is None:
            self.low_byte = value
            if self.mode == 0:
                self.start = None  # the first byte stops a running mode 0
        else:
            count, self.low_byte = self.low_byte | value << 8, None
            self._load(count, tick)

    def _load(self, count: int, tick: int) -> None:
        # 0 stands for the largest count: 2^16, or 10^4 in BCD.
        value = (_from_bcd(count) or 10_000) if self.bcd else (count or 0x10000)
        self.settle(tick)
        # A new count takes effect when the present period ends.
        if self.mode in _PERIODIC and self.start is not None:
            self.next_reload = value
            self.swap = self.start + ((tick - self.start) // self.reload + 1) * self.reload
            return
        self.reload = value
        if self.mode in (1, 5):  # armed: the gate's edge starts it
            return
        # The pulse after the write loads the count.
        self.start = tick + 1
        self.frozen = None if self.gate else 0

    def settle(self, tick: int) -> None:
        """Brings a new count of a periodic mode into effect once its period has begun."""
        if self.next_reload is not None and tick >= self.swap:
            self.start, self.reload, self.next_reload = self.swap, self.next_reload, None

    def set_gate(self, level: bool, tick: int) -> None:  # noqa: FBT001  # a wire has one level and nothing else
        """Drives the gate input: it suspends modes 0, 2, 3 and 4, and triggers 1, 2, 3 and 5."""
        self.settle(tick)
        if level and not self.gate:
            # Modes 1 and 5 are triggered by the edge, 2 and 3 start their period again.
            if self.mode in (1, 5) or (self.mode in _PERIODIC and self.start is not None):
                self.start, self.frozen = tick + 1, None
            elif self.frozen is not None:
                # The others go on where they stood.
                self.start, self.frozen = tick - self.frozen, None
        elif self.gate and not level and self.mode not in (1, 5) and self.start is not None:
            self.frozen = self._elapsed(tick)
        self.gate = level

    def _elapsed(self, tick: int) -> int:
        if self.start is None:
            return 0
        return self.frozen if self.frozen is not None else max(0, tick - self.start)

    def _raw_count(self, tick: int) -> int:
        """The counting element as it is read: 16 bits, in BCD if the counter counts so."""
        self.settle(tick)
        elapsed = self._elapsed(tick)
        if self.mode == 2:
            count = self.reload - elapsed % self.reload
        elif self.mode == 3:
            # Mode 3 counts down by two, twice a period.
            count = self.reload - 2 * (elapsed % self.reload) % self.reload
        else:
            count = self.reload - elapsed
        return _to_bcd(count % 10_000) if self.bcd else count & 0xFFFF

    def output(self, tick: int) -> bool:
        """The level of the OUT pin."""
        self.settle(tick)
        if self.start is None:
            # Mode 0's OUT goes low with the control word, all others' goes high.
            return self.mode != 0
        elapsed = self._elapsed(tick)
        if self.mode in (0, 1):
            return elapsed >= self.reload
        if self.mode == 2:
            return not self.gate or elapsed % self.reload != self.reload - 1
        # An odd count is high for one pulse longer than it is low.
        if self.mode == 3:
            return not self.gate or elapsed % self.reload < (self.reload + 1) // 2
        return elapsed != self.reload

    def next_rise(self, after: int) -> int | None:
        """The first tick later than ``after`` at which OUT goes high, if the counter is left alone."""
        self.settle(after)
        if self.start is None or self.frozen is not None:
            return None
        if self.mode in _PERIODIC:
            # From the start, not from the last rise, so that rounding does not add up.
            return self.start + max(1, (after - self.start) // self.reload + 1) * self.reload
        # Strobes of modes 4 and 5 are low for one pulse, and rise one after the count has ended.
        rise = self.start + self.reload + (self.mode in (4, 5))
        return rise if rise > after else None

    def read(self, tick: int) -> int:
        """The next byte to read: latched status first, then the latched or running count."""
        # Status before count, when both are latched (read-back command).
        if self.latched_status is not None:
            status, self.latched_status = self.latched_status, None
            return status
        count = self._raw_count(tick) if self.latched is None else self.latched
        # Low byte first, then high; the flip-flop is the data sheet's.
        if self.access == 3 and not self.read_high:
            self.read_high = True
            return count & 0xFF
        self.read_high, self.latched = False, None
        return count & 0xFF if self.access == 1 else count >> 8

    def status(self, tick: int) -> int:
        """The read-back status byte: OUT, null count, access, mode, BCD."""
        # Null count: the count that was written is not in the counting element yet.
        null = not self.by_firmware and (self.start is None or tick < self.start or self.next_reload is not None)
        return self.output(tick) << 7 | null << 6 | self.access << 4 | self.mode << 1 | self.bcd


@attrs.define
class Pit:
    """The 8254 at 0x40..0x43 and port 0x61; counter 0's OUT is interrupt request 0."""

    now: Callable[[], int] = attrs.field(metadata=WIRE)
    interrupt: Callable[[], None] = attrs.field(metadata=WIRE)
    counters: list[Counter] = attrs.field(factory=lambda: [Counter(), Counter(), Counter(gate=False)])
    speaker: int = 0
    served: int = 0
    ports: tuple[int, ...] = (0x40, 0x41, 0x42, 0x43, 0x61)

    def service(self) -> None:
        """Raises request 0 if OUT 0 rose since the last call; several rises merge, as they do in the 8259."""
        tick = ticks_at(self.now())
        rise = self.counters[0].next_rise(self.served)
        # Before anything is raised: the interrupt may look at the counter again.
        self.served = tick
        if rise is not None and rise <= tick:
            self.interrupt()
        self.counters[0].settle(tick)

    def next_event(self) -> int | None:
        """Nanosecond of the next rise of OUT 0, or None if the counter is stopped."""
        rise = self.counters[0].next_rise(self.served)
        return None if rise is None else ns_of(rise)

    def read(self, port: int) -> int:
        """A count or status byte, or the speaker port: gate, speaker, refresh toggle (15 us) and OUT 2."""
        tick = ticks_at(self.now())
        if port == 0x61:
            # Refresh toggles at about 66 kHz on a PC/AT; kernels have timed short delays by it.
            refresh = self.now() // 15_085 & 1
            return self.speaker | refresh << 4 | self.counters[2].output(tick) << 5
        # The control register is write-only.
        if port == 0x43:
            return 0xFF
        return self.counters[port - 0x40].read(tick)

    def write(self, port: int, value: int) -> None:
        """A control word, read-back command or count byte; bit 0 of port 0x61 gates counter 2."""
        # What was due before the write is due by the old count.
        self.service()
        tick = ticks_at(self.now())
        if port == 0x61:
            self.speaker = value & 3
            self.counters[2].set_gate(bool(value & 1), tick)
        elif port != 0x43:
            self.counters[port - 0x40].write(value, tick)
        elif value >> 6 == 3:
            self._read_back(value, tick)
        else:
            self.counters[value >> 6].control(value, tick)

    def _read_back(self, value: int, tick: int) -> None:
        for number, counter in enumerate(self.counters):
            if value >> number + 1 & 1:
                # Both bits are active low.
                if not value & 0x20:
                    counter.control(0, tick)
                # Only the first of several latches counts.
                if not value & 0x10 and counter.latched_status is None:
                    counter.latched_status = counter.status(tick)
