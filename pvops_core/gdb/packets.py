"""The protocol's bytes: packets with their checksums, acknowledgements and the interrupt, as pure functions of them.

Source: GDB manual, "Overview" of the remote protocol: ``$`` payload ``#`` two hexadecimal digits, the sum of the
payload's bytes modulo 256; ``#``, ``$``, ``}`` and ``*`` in it are ``}`` and the byte exclusive-or 0x20.
"""

from __future__ import annotations

import enum
import re
from typing import Final

PACKET_SIZE: Final = 1 << 14
"""Most bytes of a packet's payload, in either direction; told to the other end."""
_ESCAPE, _START, _END, _FLIP = ord("}"), ord("$"), ord("#"), 0x20
_TO_ESCAPE: Final = re.compile(rb"[#$}*]")
_ESCAPED: Final = re.compile(rb"}(.)", re.DOTALL)
_DIGITS: Final = b"0123456789abcdefABCDEF"


class Sign(enum.Enum):
    """What is said between packets, or is none."""

    ACK = "+"
    NAK = "-"
    INTERRUPT = "\x03"
    BROKEN = "broken"
    """A packet whose checksum is wrong, or that has no end where one has to be."""


def framed(payload: bytes) -> bytes:
    """A payload as a packet."""
    escaped = _TO_ESCAPE.sub(lambda found: bytes([_ESCAPE, found[0][0] ^ _FLIP]), payload)
    return b"$%s#%02x" % (escaped, sum(escaped) & 0xFF)


class Framer:
    """Finds packets in bytes as they come; it keeps no more of them than a packet may have."""

    def __init__(self) -> None:
        self._body: bytearray | None = None  # of the packet that has begun
        self._checksum: bytearray | None = None

    def feed(self, data: bytes) -> list[bytes | Sign]:
        """The payloads and signs that come to their end with these bytes, in order."""
        return [found for byte in data if (found := self._take(byte)) is not None]

    def _take(self, byte: int) -> bytes | Sign | None:
        if self._checksum is not None:
            self._checksum.append(byte)
            return self._end() if len(self._checksum) == 2 else None
        if byte == _START:
            # Within a payload it is escaped: the one that has begun has lost its end.
            lost, self._body = self._body is not None, bytearray()
            return Sign.BROKEN if lost else None
        if self._body is None:
            return _SIGNS.get(byte)  # anything else is noise, which the protocol has ignored
        if byte == _END:
            self._checksum = bytearray()
        elif len(self._body) <= 2 * PACKET_SIZE:  # each byte of a payload may be escaped
            self._body.append(byte)
        return None

    def _end(self) -> bytes | Sign:
        body, checksum = bytes(self._body or b""), bytes(self._checksum or b"")
        self._body = self._checksum = None
        payload = _ESCAPED.sub(lambda found: bytes([found[1][0] ^ _FLIP]), body)
        sound = len(payload) <= PACKET_SIZE >= len(body) // 2 and all(digit in _DIGITS for digit in checksum)
        return payload if sound and int(checksum, 16) == sum(body) & 0xFF else Sign.BROKEN


_SIGNS: Final = {ord(sign.value): sign for sign in (Sign.ACK, Sign.NAK, Sign.INTERRUPT)}
