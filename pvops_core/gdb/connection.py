"""The socket that a debugger comes to, and the one that it talks by."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pvops_core.errors import UsageError
from pvops_core.gdb.packets import Framer, Sign, framed

if TYPE_CHECKING:
    from pvops_core.gdb.orders import DebugOrders

SECONDS: Final = 10.0
"""How long a debugger may take to receive what it has asked for."""
_PIECE: Final = 1 << 14


class GoneError(Exception):
    """The other end is there no more."""


class GdbConnection:
    """One debugger at the other end.

    Args:
        connected: the socket.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(SECONDS)
        with contextlib.suppress(OSError):  # a packet is small, and each is waited for
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connected
        self._framer = Framer()
        self._tokens: deque[bytes | Sign] = deque()
        self._last = b""

    def next(self) -> bytes | Sign | None:
        """The next payload or sign that has come; None if none has come wholly."""
        return self._tokens.popleft() if self._tokens else None

    def receive(self) -> None:
        """Take in what has come, or wait for something.

        Raises:
            GoneError: nothing will any more.
        """
        try:
            data = self.socket.recv(_PIECE)
        except OSError as failure:
            raise GoneError from failure
        if not data:
            raise GoneError
        self._tokens += self._framer.feed(data)

    def acknowledge(self, *, sound: bool) -> None:
        """Say that a packet has come as it should, or that it is to come again."""
        self._send(b"+" if sound else b"-")

    def reply(self, payload: bytes) -> None:
        """Send a packet; GoneError as for ``receive``, or because it is not taken."""
        self._last = framed(payload)
        self._send(self._last)

    def repeat(self) -> None:
        """Send the last packet again."""
        self._send(self._last)

    def _send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError as failure:  # a timeout among them
            raise GoneError from failure

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


def listen(orders: DebugOrders) -> socket.socket:
    """The socket that debuggers come to.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        family = socket.getaddrinfo(orders.host, orders.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((orders.host, orders.port), family=family)
    except (OSError, UnicodeError) as failure:
        reason = getattr(failure, "strerror", None) or failure
        raise UsageError(f"--gdb: nobody can listen at {orders.host}, port {orders.port}: {reason}") from failure
    listener.settimeout(0)
    return listener


class Doorbell:
    """A thread that rings when somebody comes or says something while the guest runs; it touches nothing else.

    Args:
        ring: called once, in that thread, each time that the bell was armed.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._heard: tuple[socket.socket, ...] = ()
        self._rouser, self._roused = socket.socketpair()
        self._over = False
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def arm(self, *heard: socket.socket | None) -> None:
        """Ring at the next sound of these, and no more at others."""
        self._heard = tuple(each for each in heard if each is not None)
        self._rouser.send(b"!")

    def close(self) -> None:
        """Never ring again."""
        self._over = True
        self._rouser.send(b"!")
        self._thread.join()
        self._rouser.close()
        self._roused.close()

    def _listen(self) -> None:
        while not self._over:
            heard = self._heard
            ready = waited(self._roused, *heard)
            if self._roused in ready:
                self._roused.recv(_PIECE)
            elif heard is self._heard:
                self._heard = ()
                self._ring()


def waited(*sockets: socket.socket, seconds: float | None = None) -> list[socket.socket]:
    """Those of some sockets that there is something to be read from, waited for unless ``seconds`` says otherwise."""
    with selectors.DefaultSelector() as selector:
        for each in sockets:
            with contextlib.suppress(ValueError, OSError):  # one that has just been closed
                selector.register(each, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(seconds) if isinstance(key.fileobj, socket.socket)]
