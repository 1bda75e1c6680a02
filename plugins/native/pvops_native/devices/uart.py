"""A 16550A serial port at 0x3f8, request line 4: bytes leave at once; bytes that arrive wait for the guest.

Source: National Semiconductor PC16550D data sheet (register layout, FIFO control, interrupt identification and its
priorities, loopback). The other end keeps to the handshake of RS-232 (EIA/TIA-232-E): it sends while the guest asserts
RTS, which a driver does when somebody has opened the port, so what is typed before is not lost; and it is never slower
than the guest, so the FIFO's time-out for characters that do not come is over at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import attrs

from pvops_native.devices.bus import WIRE

IER_RX, IER_TX = 1, 2
FCR_ENABLE, FCR_CLEAR_RECEIVER = 1, 2
LCR_DLAB: Final = 0x80
MCR_RTS, MCR_OUT2, MCR_LOOP = 0x02, 0x08, 0x10
LSR_DATA, LSR_OVERRUN, LSR_EMPTY = 0x01, 0x02, 0x60
IIR_NONE, IIR_TX, IIR_RX, IIR_TIMEOUT, IIR_FIFO = 1, 2, 4, 0x0C, 0xC0
FIFO_SIZE: Final = 16
TRIGGERS: Final = (1, 4, 8, 14)
"""Bytes in the receiver's FIFO at which it asks for service, by the two high bits of the FIFO control register."""


@attrs.define
class Uart:
    """The registers of one 16550A.

    Attributes:
        send: gets every byte that leaves.
        line: drives the request line.
        base: its first port.
        waiting: bytes that the other end has not sent yet.
        received: the receiver's buffer: one byte, or the FIFO.
    """

    send: Callable[[int], None] = attrs.field(metadata=WIRE)
    line: Callable[[bool], None] = attrs.field(metadata=WIRE)
    base: int = 0x3F8
    waiting: deque[int] = attrs.field(factory=deque)
    received: deque[int] = attrs.field(factory=deque)
    # 115,200 baud; nothing waits for it.
    divisor: int = 1
    ier: int = 0
    fcr: int = 0
    lcr: int = 3
    mcr: int = 0
    scratch: int = 0
    overrun: bool = False
    tx_pending: bool = False

    @property
    def ports(self) -> range:
        """Eight registers."""
        return range(self.base, self.base + 8)

    def receive(self, data: bytes) -> None:
        """Bytes that somebody at the other end wants to send."""
        self.waiting.extend(data)
        self._drive()

    @property
    def _room(self) -> int:
        # Without FIFOs the receiver holds one byte.
        return (FIFO_SIZE if self.fcr & FCR_ENABLE else 1) - len(self.received)

    def _cause(self) -> int:
        """The interrupt identification: received data before an empty transmitter."""
        if self.ier & IER_RX and self.received:
            # The other end does not wait, so what is below the trigger is all that comes: the time-out.
            full = not self.fcr & FCR_ENABLE or len(self.received) >= TRIGGERS[self.fcr >> 6]
            return IIR_RX if full else IIR_TIMEOUT
        # The transmitter's is the lowest priority of those that are modelled.
        return IIR_TX if self.ier & IER_TX and self.tx_pending else IIR_NONE

    def _drive(self) -> None:
        """Let the other end send as far as it may; then the request line, which a PC wires through OUT2.

        Loopback cuts both off.
        """
        # In loopback nothing comes from outside.
        if self.mcr & (MCR_RTS | MCR_LOOP) == MCR_RTS:
            while self.waiting and self._room > 0:
                self.received.append(self.waiting.popleft())
        # OUT2 gates the line in a PC (asynchronous adapter).
        gated = self.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2
        self.line(gated and self._cause() != IIR_NONE)

    def read(self, port: int) -> int:
        """One register: data, enables, cause, line control, modem control, line status, modem status, scratch."""
        register = port - self.base
        # DLAB puts the divisor's two bytes in place of data and enables.
        if self.lcr & LCR_DLAB and register < 2:
            return self.divisor >> 8 * register & 0xFF
        if register == 0:
            value = self.received.popleft() if self.received else 0
            self._drive()
            return value
        if register == 2:
            return self._identify()
        if register == 5:
            return self._line_status()
        values = {1: self.ier, 3: self.lcr, 4: self.mcr, 6: self._modem_status()}
        return values.get(register, self.scratch)

    def _identify(self) -> int:
        """Reading it is what ends the transmitter's interrupt."""
        cause = self._cause()
        # Only if it was the cause that was told.
        if cause == IIR_TX:
            self.tx_pending = False
            self._drive()
        return cause | (IIR_FIFO if self.fcr & FCR_ENABLE else 0)

    def _line_status(self) -> int:
        """Reading it clears the overrun, which only loopback can bring about."""
        # Both bits of the empty transmitter: what is sent has left.
        status = LSR_EMPTY | (LSR_DATA if self.received else 0) | (LSR_OVERRUN if self.overrun else 0)
        self.overrun = False
        return status

    def _modem_status(self) -> int:
        """CTS, DSR, RI, DCD: a cable that is always ready, or in loopback RTS, DTR, OUT1 and OUT2."""
        if not self.mcr & MCR_LOOP:
            # CTS, DSR and DCD.
            return 0xB0
        # RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD.
        return (self.mcr & 2) << 3 | (self.mcr & 1) << 5 | (self.mcr & 4) << 4 | (self.mcr & 8) << 4

    def write(self, port: int, value: int) -> None:
        """One register; a byte of data leaves at once (in loopback it arrives instead)."""
        register = port - self.base
        if self.lcr & LCR_DLAB and register < 2:
            keep = 0xFF00 if register == 0 else 0x00FF
            self.divisor = self.divisor & keep | value << 8 * register
        elif register == 0:
            self._transmit(value)
        elif register == 1:
            # Enabling the interrupt raises it at once if the transmitter is empty; Linux looks for that as a test.
            self.tx_pending = self.tx_pending or bool(value & IER_TX and not self.ier & IER_TX)
            self.ier = value & 0x0F
        elif register == 2:
            self._control_fifos(value)
        elif register == 3:
            self.lcr = value
        elif register == 4:
            self.mcr = value & 0x1F
        elif register == 7:
            self.scratch = value
        self._drive()

    def _transmit(self, value: int) -> None:
        # The byte has left already, so the transmitter is empty again.
        self.tx_pending = True
        if not self.mcr & MCR_LOOP:
            self.send(value)
        elif self._room > 0:
            self.received.append(value)
        else:
            self.overrun = True

    def _control_fifos(self, value: int) -> None:
        """Switching the FIFOs on or off empties them; without them the other bits mean nothing."""
        switched = (value ^ self.fcr) & FCR_ENABLE
        if switched or (value & FCR_ENABLE and value & FCR_CLEAR_RECEIVER):
            self.received.clear()
        # FCR_ENABLE and the trigger level stay; the clear bits are commands.
        self.fcr = value & (IIR_FIFO | FCR_ENABLE) if value & FCR_ENABLE else 0
