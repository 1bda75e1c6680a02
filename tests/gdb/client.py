"""The other end of the protocol, as far as tests need it."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self

from pvops_core.gdb.debugger import Debugger
from pvops_core.gdb.orders import LOOPBACK, DebugOrders
from pvops_core.gdb.packets import Framer, Sign, framed

if TYPE_CHECKING:
    from collections.abc import Collection

    from pvops_core.machine import Stop, Vcpu
    from pvops_core.session import Session

SECONDS = 30.0


class Client:
    """Says packets and hears their answers."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((LOOPBACK, port), SECONDS)
        self._framer = Framer()
        self._tokens: list[bytes | Sign] = []

    def say(self, packet: str | bytes) -> None:
        self.socket.sendall(framed(packet.encode() if isinstance(packet, str) else packet))

    def token(self) -> bytes | Sign:
        while not self._tokens:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError
            self._tokens += self._framer.feed(data)
        return self._tokens.pop(0)

    def hear(self) -> str:
        while isinstance(token := self.token(), Sign):
            pass
        return token.decode("latin-1")

    def ask(self, packet: str | bytes) -> str:
        self.say(packet)
        return self.hear()

    def register(self, number: int) -> int:
        return int.from_bytes(bytes.fromhex(self.ask(f"p{number:x}")), "little")

    def monitor(self, line: str) -> str:
        self.say(b"qRcmd," + line.encode().hex().encode())
        text = b""
        while (reply := self.hear()) != "OK":
            text += bytes.fromhex(reply.removeprefix("O"))
        return text.decode()

    def over(self) -> bool:
        """Whether the other end hangs up, whatever it still says."""
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                self.token()
        return True

    def close(self) -> None:
        self.socket.close()


class Running:
    """A session that runs in a thread of its own, with a debugger's door."""

    def __init__(self, session: Session, *, wait: bool = True) -> None:
        self.said: list[str] = []
        self.stood: list[bool] = []
        self.stop: Stop | None = None
        self.error: BaseException | None = None
        self._clients: list[Client] = []
        self._session = session
        orders = DebugOrders(LOOPBACK, 0, wait)
        self.debugger = Debugger(session, orders, self.said.append, self.stood.append)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _go(self, step: Collection[Vcpu]) -> Stop:
        return self._session.run(step=step)

    def _run(self) -> None:
        try:
            with self.debugger:
                self.stop = self.debugger.run(self._go)
        except BaseException as error:  # noqa: BLE001 - the test's to look at
            self.error = error

    def client(self) -> Client:
        self._clients.append(Client(int(self.debugger.place.rpartition(":")[2])))
        return self._clients[-1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

    def end(self) -> str:
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), "the guest does not come to its end"
        if self.error:
            raise self.error
        assert self.stop is not None
        return self.stop.reason
