"""The daemon: answers requests, and tells watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from pvops_xen.xenstore.connection import Connection, Transaction
from pvops_xen.xenstore.store import StoreAccess
from pvops_xen.xenstore.tree import READ, Permission, Tree, TreeChange, View, is_path, parent_of
from pvops_xen.xenstore.wire import (
    OK,
    PAYLOAD_MAX,
    Message,
    RequestError,
    Type,
    XsError,
    one_string,
    refuse,
    split,
    strings,
)

MOST_UNREAD: Final = 20 * PAYLOAD_MAX
"""A client that does not read what it is told is not answered any more for a while."""
DOMID_SELF: Final = 0x7FF0
_WITHOUT_TRANSACTION: Final = frozenset(
    {
        Type.WATCH,
        Type.UNWATCH,
        Type.GET_DOMAIN_PATH,
        Type.INTRODUCE,
        Type.RELEASE,
        Type.IS_DOMAIN_INTRODUCED,
        Type.RESUME,
        Type.SET_TARGET,
        Type.RESET_WATCHES,
    }
)
_TOOLSTACK_ONLY: Final = frozenset({Type.CONTROL, Type.INTRODUCE, Type.RELEASE, Type.RESUME, Type.SET_TARGET})
_TYPES: Final = frozenset(Type) - {Type.WATCH_EVENT, Type.ERROR}


@attrs.define
class Daemon:
    """A xenstored and its clients.

    Attributes:
        tree: the tree.
        clients: connections, by domain.
    """

    tree: Tree = attrs.field(factory=Tree)
    clients: dict[int, Connection] = attrs.field(factory=dict)

    def introduce(self, domid: int) -> Connection:
        """A new client."""
        self.clients[domid] = Connection(domid)
        return self.clients[domid]

    def as_toolstack(self) -> StoreAccess:
        """The tree in the hands of dom0's toolstack."""
        return StoreAccess(self.tree, 0, self._tell)

    def receive(self, client: Connection, data: bytes) -> None:
        """Bytes from a client: every message that is whole is answered.

        Raises:
            BadClientError: they are no messages.
        """
        client.received += data
        while len(client.unread) < MOST_UNREAD and (message := split(client.received)) is not None:
            self._answer(client, message)

    def _answer(self, client: Connection, message: Message) -> None:
        try:
            reply = self._serve(client, message)
            if len(reply) > PAYLOAD_MAX:
                raise refuse(XsError.E2BIG)
        except RequestError as refused:
            client.send(attrs.evolve(message, type=Type.ERROR, payload=refused.error.value.encode() + b"\0"))
            return
        client.send(attrs.evolve(message, payload=reply))
        if message.type == Type.WATCH:  # everybody who watches is told once at the start
            client.send_event(client.watches[-1], client.watches[-1].path)

    def _serve(self, client: Connection, message: Message) -> bytes:
        """The payload of the reply.

        Raises:
            RequestError: the request is refused.
        """
        if message.type not in _TYPES:
            raise refuse(XsError.ENOSYS)
        kind = Type(message.type)
        if kind in _TOOLSTACK_ONLY and client.domid:
            raise refuse(XsError.EACCES)
        transaction = None
        if message.transaction and kind not in _WITHOUT_TRANSACTION:
            transaction = client.transactions.get(message.transaction)
            if transaction is None:
                raise refuse(XsError.ENOENT)
        if kind is Type.TRANSACTION_START:
            if transaction is not None:
                raise refuse(XsError.EBUSY)
            return f"{client.begin(View(self.tree))}\0".encode()
        if kind is Type.TRANSACTION_END:
            return self._end(client, message, transaction)
        if kind in _ON_CLIENTS:
            return _ON_CLIENTS[kind](self, client, message.payload)
        operation = _ON_NODES.get(kind)
        if operation is None:
            raise refuse(XsError.ENOSYS)
        return operation(self._access(client, transaction), client, message.payload)

    def _access(self, client: Connection, transaction: Transaction | None) -> StoreAccess:
        if transaction is None:
            return StoreAccess(self.tree, client.domid, self._tell)
        return StoreAccess(transaction.view, client.domid, transaction.changes.append)

    def _end(self, client: Connection, message: Message, transaction: Transaction | None) -> bytes:
        if message.payload not in {b"T\0", b"F\0"}:
            raise refuse(XsError.EINVAL)
        if transaction is None:
            raise refuse(XsError.ENOENT)
        del client.transactions[message.transaction]
        if message.payload == b"T\0":
            if transaction.view.conflicts():
                raise refuse(XsError.EAGAIN)
            transaction.view.commit()
            for change in transaction.changes:
                self._tell(change)
        return OK

    def _tell(self, change: TreeChange) -> None:
        """Tell the watches that cover a node, of those clients that may read it or know of its end."""
        node = self.tree.get(change.path) or self.tree.get(parent_of(change.path))
        for client in self.clients.values():
            if node is not None and not node.rights_of(client.domid) & READ:
                continue
            for watch in client.watches:
                if watch.covers(change):
                    client.send_event(watch, change.path)

    # --- what is about clients ---------------------------------------------------------------------------------------

    def watch(self, client: Connection, payload: bytes) -> bytes:
        """Path and token."""
        path, token = _two(payload)
        if not path.startswith("@") and not is_path(client.absolute(path)):
            raise refuse(XsError.EINVAL)
        client.add_watch(path, token)
        return OK

    def unwatch(self, client: Connection, payload: bytes) -> bytes:
        """Path and token."""
        client.remove_watch(*_two(payload))
        return OK

    def reset_watches(self, client: Connection, payload: bytes) -> bytes:
        """A client that begins anew: no watches, no transactions."""
        del self, payload
        client.watches.clear()
        client.transactions.clear()
        return OK

    def domain_path(self, client: Connection, payload: bytes) -> bytes:
        """A domain's number."""
        del self, client
        return f"/local/domain/{_number(payload)}\0".encode()

    def is_introduced(self, client: Connection, payload: bytes) -> bytes:
        """A domain's number: the daemon knows it."""
        del client
        domid = _number(payload)
        return b"T\0" if domid == DOMID_SELF or domid in self.clients or domid == 0 else b"F\0"


def _two(payload: bytes) -> tuple[str, str]:
    found = strings(payload)
    if len(found) != 2:
        raise refuse(XsError.EINVAL)
    return found[0], found[1]


def _number(payload: bytes) -> int:
    """A decimal number as C's atoi reads it."""
    text = one_string(payload).lstrip()
    digits = text[: len(text) - len(text.lstrip("0123456789"))]
    return int(digits[:10] or "0") & 0xFFFF_FFFF


# --- what is about nodes ---------------------------------------------------------------------------------------------


def _read(access: StoreAccess, client: Connection, payload: bytes) -> bytes:
    return access.node(client.absolute(one_string(payload)), READ).value


def _directory(access: StoreAccess, client: Connection, payload: bytes) -> bytes:
    return access.node(client.absolute(one_string(payload)), READ).listing


def _directory_part(access: StoreAccess, client: Connection, payload: bytes) -> bytes:
    """Generation, then names from an offset on, as many as fit; an empty one marks the end."""
    path, offset = _two(payload)
    node = access.node(client.absolute(path), READ)
    start = _number(offset.encode("latin-1") + b"\0")
    generation = f"{node.generation}\0".encode()
    rest = node.listing[start:]
    room = PAYLOAD_MAX - len(generation) - 1
    if len(rest) <= room:
        return generation + rest + b"\0"
    return generation + rest[: rest.rfind(b"\0", 0, room) + 1]


def _get_permissions(access: StoreAccess, client: Connection, payload: bytes) -> bytes:
    node = access.node(client.absolute(one_string(payload)), READ)
    return b"".join(f"{each}\0".encode() for each in node.permissions)


def _set_permissions(access: StoreAccess, client: Connection, payload: bytes) -> bytes:
    path, *words = strings(payload) or [""]
    if not words:
        raise refuse(XsError.EINVAL)
    permissions = tuple(map(Permission.parse, words))
    if path.startswith("@"):  # who hears of special events is the toolstack's to say
        raise refuse(XsError.EACCES)
    access.set_permissions(client.absolute(path), permissions)
    return OK


def _write(access: StoreAccess, client: Connection, payload: bytes) -> bytes:
    path, end, value = payload.partition(b"\0")
    if not end:
        raise refuse(XsError.EINVAL)
    access.write(client.absolute(path.decode("latin-1")), value)
    return OK


def _mkdir(access: StoreAccess, client: Connection, payload: bytes) -> bytes:
    access.mkdir(client.absolute(one_string(payload)))
    return OK


def _remove(access: StoreAccess, client: Connection, payload: bytes) -> bytes:
    access.remove(client.absolute(one_string(payload)))
    return OK


_ON_NODES: Final[dict[Type, Callable[[StoreAccess, Connection, bytes], bytes]]] = {
    Type.READ: _read,
    Type.DIRECTORY: _directory,
    Type.DIRECTORY_PART: _directory_part,
    Type.GET_PERMS: _get_permissions,
    Type.SET_PERMS: _set_permissions,
    Type.WRITE: _write,
    Type.MKDIR: _mkdir,
    Type.RM: _remove,
}
_ON_CLIENTS: Final[dict[Type, Callable[[Daemon, Connection, bytes], bytes]]] = {
    Type.WATCH: Daemon.watch,
    Type.UNWATCH: Daemon.unwatch,
    Type.RESET_WATCHES: Daemon.reset_watches,
    Type.GET_DOMAIN_PATH: Daemon.domain_path,
    Type.IS_DOMAIN_INTRODUCED: Daemon.is_introduced,
}
