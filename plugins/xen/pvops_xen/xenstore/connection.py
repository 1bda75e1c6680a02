"""One client: its watches, its transactions, and what has been sent to it and not yet read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_xen.xenstore.wire import Message, Type, XsError, refuse

if TYPE_CHECKING:
    from pvops_xen.xenstore.tree import TreeChange, View

QUOTA_WATCHES: Final = 128  # quota_* of tools/xenstore/xenstored_core.c, as it sets them without options
QUOTA_TRANSACTIONS: Final = 10
_PAYLOAD_MAX: Final = 4096


@attrs.frozen
class StoreWatch:
    """A watch.

    Attributes:
        path: absolute path, or the name of a special event.
        token: the client's own word for it.
        prefix: what to take off a path to have it as the client named it.
    """

    path: str
    token: str
    prefix: str = ""

    def covers(self, change: TreeChange) -> bool:
        """It is told of a change."""
        if change.path == self.path:
            return True
        return not change.exact and (self.path == "/" or change.path.startswith(self.path + "/"))

    def event(self, path: str) -> bytes:
        """Payload of the event for a path."""
        return f"{path.removeprefix(self.prefix)}\0{self.token}\0".encode("latin-1")


@attrs.define
class Transaction:
    """A transaction: its view of the tree, and the watches to tell of when it is done."""

    view: View
    changes: list[TreeChange] = attrs.field(factory=list)


@attrs.define
class Connection:
    """A client.

    Attributes:
        domid: its domain; 0 is the toolstack's.
        received: bytes that are not a whole message yet.
        unread: bytes for the client that did not fit into its ring.
        watches: in the order in which they were set.
        transactions: by number.
        next_transaction: number to try next.
        ignored: why it is not listened to any more; empty while it is.
    """

    domid: int
    received: bytearray = attrs.field(factory=bytearray)
    unread: bytearray = attrs.field(factory=bytearray)
    watches: list[StoreWatch] = attrs.field(factory=list)
    transactions: dict[int, Transaction] = attrs.field(factory=dict)
    next_transaction: int = 0
    ignored: str = ""

    @property
    def path(self) -> str:
        """Where its relative paths begin."""
        return f"/local/domain/{self.domid}"

    def absolute(self, path: str) -> str:
        """A path as the client wrote it, made absolute; special events keep their names."""
        return path if path.startswith(("/", "@")) else f"{self.path}/{path}"

    def send(self, message: Message) -> None:
        """Queue a message for the client."""
        self.unread += message.pack()

    def send_event(self, watch: StoreWatch, path: str) -> None:
        """Queue an event; one that is too long is dropped."""
        payload = watch.event(path)
        if len(payload) <= _PAYLOAD_MAX:
            self.send(Message(Type.WATCH_EVENT, 0, 0, payload))

    def add_watch(self, path: str, token: str) -> StoreWatch:
        """Set a watch.

        Raises:
            RequestError: it is there already, or one too many.
        """
        absolute = self.absolute(path)
        watch = StoreWatch(absolute, token, "" if absolute == path else self.path + "/")
        if any((each.path, each.token) == (absolute, token) for each in self.watches):
            raise refuse(XsError.EEXIST)
        if self.domid and len(self.watches) >= QUOTA_WATCHES:
            raise refuse(XsError.E2BIG)
        self.watches.append(watch)
        return watch

    def remove_watch(self, path: str, token: str) -> None:
        """Take a watch away.

        Raises:
            RequestError: there is no such watch.
        """
        absolute = self.absolute(path)
        found = next((each for each in self.watches if (each.path, each.token) == (absolute, token)), None)
        if found is None:
            raise refuse(XsError.ENOENT)
        self.watches.remove(found)

    def begin(self, view: View) -> int:
        """Start a transaction; its number.

        Raises:
            RequestError: it is one too many.
        """
        if self.domid and len(self.transactions) >= QUOTA_TRANSACTIONS:
            raise refuse(XsError.ENOSPC)
        while not self.next_transaction or self.next_transaction in self.transactions:
            self.next_transaction = (self.next_transaction + 1) % (1 << 32)
        number = self.next_transaction
        self.next_transaction = (number + 1) % (1 << 32)
        self.transactions[number] = Transaction(view)
        return number
