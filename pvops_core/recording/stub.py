"""QEMU's debugger stub: the few packets of GDB's remote protocol that it takes to stop a kernel and look at it.

Packets, stop replies and errors are those of the GDB manual, appendix "GDB Remote Serial Protocol"; what QEMU makes of
them is in its gdbstub.c. No client of that protocol was found that is maintained and takes a socket that is open.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Final

from pvops_core.errors import PvopsError

if TYPE_CHECKING:
    from collections.abc import Mapping

REGISTERS: Final[Mapping[str, int]] = {"rax": 0, "rsp": 7, "rdi": 5, "rip": 16}
"""Places of registers in a ``g`` reply (gdb-xml/i386-64bit.xml), each of 8 bytes in whatever mode the CPU is."""

CHUNK: Final = 1 << 10
"""Bytes asked for at once: a reply of QEMU's has at most 4,096 letters."""

_LARGEST: Final = 1 << 16
_BREAKPOINT: Final = 1
"""Type of a hardware breakpoint, which changes no byte of the kernel."""


class RecordingError(PvopsError):
    """A boot ended, or said something that it should not have, before everything was recorded."""


class Stub:
    """A stopped QEMU at the other end of a socket.

    Args:
        connection: the socket; it is closed by whoever opened it.
        seconds: how long QEMU may take to answer, and the kernel to come to a breakpoint.
    """

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._received = b""
        connection.settimeout(seconds)

    def greet(self) -> None:
        """See that somebody is there, and that the machine stands still.

        Raises:
            RecordingError: as :meth:`registers` does.
        """
        reply = self._ask("?")
        if reply[:1] not in {"T", "S"}:
            raise RecordingError(f"QEMU's machine does not stand still: {reply!r}")

    def break_at(self, address: int) -> None:
        """Stop before the instruction at a virtual address; no more once :meth:`clear` was called for it."""
        self._order(f"Z{_BREAKPOINT},{address:x},1")

    def clear(self, address: int) -> None:
        """Take a breakpoint away."""
        self._order(f"z{_BREAKPOINT},{address:x},1")

    def go(self) -> None:
        """Let the machine run to a breakpoint.

        Raises:
            RecordingError: it ended, or came to none in time.
        """
        self._stopped(self._ask("c"))

    def step(self) -> None:
        """Execute one instruction; see :meth:`go`."""
        self._stopped(self._ask("s"))

    def registers(self) -> dict[str, int]:
        """Some registers of the CPU that stopped, by name.

        Raises:
            RecordingError: QEMU is gone, or does not answer, or not as the protocol has it.
        """
        data = self._bytes(self._ask("g"))
        if len(data) < 8 * (1 + max(REGISTERS.values())):
            raise RecordingError(f"QEMU sent {len(data)} bytes of registers")
        return {name: int.from_bytes(data[8 * at : 8 * at + 8], "little") for name, at in REGISTERS.items()}

    def read(self, address: int, length: int) -> bytes:
        """Memory at a virtual address, as the CPU that stopped sees it.

        Raises:
            RecordingError: there is none, or as for :meth:`registers`.
        """
        found = b""
        while len(found) < length:
            at, count = address + len(found), min(CHUNK, length - len(found))
            reply = self._ask(f"m{at:x},{count:x}")
            data = b"" if reply.startswith("E") else self._bytes(reply)
            if len(data) != count:
                raise RecordingError(f"QEMU cannot read {count} bytes at {at:#x} ({reply[:8]!r})")
            found += data
        return found

    def _stopped(self, reply: str) -> None:
        if reply[:1] not in {"T", "S"}:
            raise RecordingError(f"the machine ended ({reply!r})")

    def _order(self, packet: str) -> None:
        reply = self._ask(packet)
        if reply != "OK":
            raise RecordingError(f"QEMU takes no hardware breakpoint: it answers {packet} with {reply!r}")

    def _bytes(self, reply: str) -> bytes:
        try:
            return bytes.fromhex(reply)
        except ValueError as failure:
            raise RecordingError(f"QEMU sent {reply[:32]!r} where bytes were due") from failure

    def _ask(self, packet: str) -> str:
        try:
            self._connection.sendall(f"${packet}#{sum(packet.encode()) & 0xFF:02x}".encode())
            return self._reply()
        except TimeoutError as failure:
            raise RecordingError(f"nothing happened in {self._connection.gettimeout():g} seconds") from failure
        except OSError as failure:
            raise RecordingError(f"QEMU is gone: {failure.strerror or failure}") from failure

    def _reply(self) -> str:
        while True:
            body, found, rest = self._received.partition(b"#")
            if found and len(rest) >= 2:
                break
            if len(self._received) > _LARGEST:
                raise RecordingError(f"QEMU sent more than {_LARGEST} letters as one packet")
            more = self._connection.recv(_LARGEST)
            if not more:
                raise RecordingError("QEMU is gone")
            self._received += more
        checksum, self._received = rest[:2], rest[2:]
        body = body.lstrip(b"+").removeprefix(b"$")
        if checksum != b"%02x" % (sum(body) & 0xFF):
            raise RecordingError(f"QEMU sent a packet whose checksum is not {checksum!r}")
        with contextlib.suppress(OSError):  # who says that it ended does not wait for that
            self._connection.sendall(b"+")
        return body.decode("latin-1")
