"""A client of the store, and a guest with a ring."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from pvops_xen.xenstore.daemon import Daemon
from pvops_xen.xenstore.toolstack import DomainFacts, write_domain
from pvops_xen.xenstore.wire import Message, Type, split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvops_xen.hypervisor.ring import ByteRing
    from pvops_xen.xenstore.service import StoreService

    from pvops_core.machine.memory import PhysicalMemory

DOMID = 3
HOME = f"/local/domain/{DOMID}"


class Client:
    """A domain that asks, and reads what it is told."""

    def __init__(self) -> None:
        self.daemon = Daemon()
        self.connection = self.daemon.introduce(DOMID)
        write_domain(self.daemon, DomainFacts(DOMID, "guest", 65536, 2, (1, 100), (2, 101)))
        self.events: list[tuple[str, str]] = []
        self.number = 0

    def ask(self, kind: int, *words: str, transaction: int = 0, raw: bytes | None = None) -> bytes:
        """The reply's payload, or the name of an error in lower case."""
        payload = b"".join(word.encode() + b"\0" for word in words) if raw is None else raw
        self.number += 1
        self.daemon.receive(self.connection, Message(kind, self.number, transaction, payload).pack())
        reply = None
        for message in self.messages():
            if message.type == Type.WATCH_EVENT:
                path, token = message.payload.decode().split("\0")[:2]
                self.events.append((path, token))
                continue
            assert reply is None
            assert (message.request, message.transaction) == (self.number, transaction)
            assert message.type in {kind, Type.ERROR}
            reply = message.payload.rstrip(b"\0").lower() if message.type == Type.ERROR else message.payload
        assert reply is not None
        return reply

    def messages(self) -> Iterator[Message]:
        while (message := split(self.connection.unread)) is not None:
            yield message

    def hear(self) -> list[tuple[str, str]]:
        """Events since the last time."""
        for message in self.messages():
            path, token = message.payload.decode().split("\0")[:2]
            self.events.append((path, token))
        heard, self.events = self.events, []
        return heard

    def write(self, path: str, value: bytes, transaction: int = 0) -> bytes:
        return self.ask(Type.WRITE, transaction=transaction, raw=path.encode() + b"\0" + value)


@attrs.define
class Guest:
    """The domain's end of the page at 4096."""

    memory: PhysicalMemory
    service: StoreService

    def index(self, offset: int, value: int | None = None) -> int:
        if value is not None:
            self.memory.set_u32(4096 + offset, value)
        return self.memory.u32(4096 + offset)

    def put(self, ring: ByteRing, data: bytes) -> None:
        producer = self.index(ring.producer)
        for at, byte in enumerate(data):
            self.memory.set_u8(4096 + ring.data + (producer + at) % ring.size, byte)
        self.index(ring.producer, (producer + len(data)) % (1 << 32))

    def take(self, ring: ByteRing) -> bytes:
        return ring.take(self.memory, 4096)
