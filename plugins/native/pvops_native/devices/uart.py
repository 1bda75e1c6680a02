"""An 8250 serial port at 0x3f8, request line 4: bytes leave at once, bytes that arrive wait in a queue.

Source: National Semiconductor INS8250 data sheet (register layout, interrupt identification priorities, loopback).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import attrs

from pvops_native.devices.bus import WIRE

IER_RX, IER_TX = 1, 2
LCR_DLAB: Final = 0x80
MCR_OUT2, MCR_LOOP = 0x08, 0x10
LSR_DATA, LSR_EMPTY = 0x01, 0x60
IIR_NONE, IIR_TX, IIR_RX = 1, 2, 4


@attrs.define
class Uart:
    """The registers of one 8250; ``send`` gets every byte that leaves, ``line`` drives its request line."""

    send: Callable[[int], None] = attrs.field(metadata=WIRE)
    line: Callable[[bool], None] = attrs.field(metadata=WIRE)
    base: int = 0x3F8
    received: deque[int] = attrs.field(factory=deque)
    divisor: int = 1
    ier: int = 0
    lcr: int = 3
    mcr: int = 0
    scratch: int = 0
    tx_pending: bool = False

    @property
    def ports(self) -> range:
        """Eight registers."""
        return range(self.base, self.base + 8)

    def receive(self, data: bytes) -> None:
        """Bytes arriving from outside."""
        self.received.extend(data)
        self._drive()

    def _cause(self) -> int:
        """The interrupt identification: received data before an empty transmitter."""
        if self.ier & IER_RX and self.received:
            return IIR_RX
        return IIR_TX if self.ier & IER_TX and self.tx_pending else IIR_NONE

    def _drive(self) -> None:
        """A PC wires the request through OUT2, which loopback cuts off."""
        gated = self.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2
        self.line(gated and self._cause() != IIR_NONE)

    def read(self, port: int) -> int:
        """One register: data, enables, cause, line control, modem control, line status, modem status, scratch."""
        register = port - self.base
        if self.lcr & LCR_DLAB and register < 2:
            return self.divisor >> 8 * register & 0xFF
        if register == 0:
            value = self.received.popleft() if self.received else 0
            self._drive()
            return value
        if register == 2:
            cause = self._cause()
            if cause == IIR_TX:
                self.tx_pending = False
                self._drive()
            return cause
        values = {1: self.ier, 3: self.lcr, 4: self.mcr, 5: self._line_status(), 6: self._modem_status()}
        return values.get(register, self.scratch)

    def _line_status(self) -> int:
        return LSR_EMPTY | (LSR_DATA if self.received else 0)

    def _modem_status(self) -> int:
        """CTS, DSR, RI, DCD: a cable that is always ready, or in loopback RTS, DTR, OUT1 and OUT2."""
        if not self.mcr & MCR_LOOP:
            return 0xB0
        return (self.mcr & 2) << 3 | (self.mcr & 1) << 5 | (self.mcr & 4) << 4 | (self.mcr & 8) << 4

    def write(self, port: int, value: int) -> None:
        """One register; a byte of data leaves at once (in loopback it arrives instead)."""
        register = port - self.base
        if self.lcr & LCR_DLAB and register < 2:
            keep = 0xFF00 if register == 0 else 0x00FF
            self.divisor = self.divisor & keep | value << 8 * register
        elif register == 0:
            if self.mcr & MCR_LOOP:
                self.received.append(value)
            else:
                self.send(value)
            self.tx_pending = True
        elif register == 1:
            self.tx_pending = self.tx_pending or bool(value & IER_TX and not self.ier & IER_TX)
            self.ier = value & 0x0F
        elif register == 3:
            self.lcr = value
        elif register == 4:
            self.mcr = value & 0x1F
        elif register == 7:
            self.scratch = value
        self._drive()
