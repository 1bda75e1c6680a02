"""A daemon as plain data, for snapshots."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from pvops_xen.xenstore.connection import Connection, StoreWatch, Transaction
from pvops_xen.xenstore.daemon import Daemon
from pvops_xen.xenstore.tree import Node, Permission, Tree, TreeChange, View

NodeState: TypeAlias = tuple[tuple[tuple[int, int], ...], bytes, tuple[str, ...], int]
"""Permissions (rights, domain), value, children, generation."""


class TransactionState(NamedTuple):
    """What a transaction has seen and changed, and the changes to tell of: path, and whether of that very node."""

    seen: dict[str, int | None]
    changed: dict[str, NodeState | None]
    owned_more: dict[int, int]
    changes: tuple[tuple[str, bool], ...]


class ClientState(NamedTuple):
    """A connection; see there. A watch is path, token and prefix."""

    received: bytes
    unread: bytes
    watches: tuple[tuple[str, str, str], ...]
    transactions: dict[int, TransactionState]
    next_transaction: int
    ignored: str


class DaemonState(NamedTuple):
    """The tree and, by domain, the clients."""

    nodes: dict[str, NodeState]
    generation: int
    counts: dict[int, int]
    clients: dict[int, ClientState]


def save(daemon: Daemon) -> DaemonState:
    """All that a daemon knows."""
    tree = daemon.tree
    nodes = {path: _node(node) for path, node in tree.nodes.items()}
    clients = {domid: _client(client) for domid, client in daemon.clients.items()}
    return DaemonState(nodes, tree.generation, dict(tree.counts), clients)


def load(state: DaemonState) -> Daemon:
    """A daemon that knows what another did."""
    nodes = {path: _restored_node(node) for path, node in state.nodes.items()}
    tree = Tree(nodes, state.generation, dict(state.counts))
    return Daemon(tree, {domid: _restored_client(domid, client, tree) for domid, client in state.clients.items()})


def _node(node: Node) -> NodeState:
    permissions = tuple((each.rights, each.domid) for each in node.permissions)
    return permissions, node.value, node.children, node.generation


def _restored_node(state: NodeState) -> Node:
    permissions, value, children, generation = state
    return Node(tuple(Permission(*each) for each in permissions), value, children, generation)


def _client(client: Connection) -> ClientState:
    return ClientState(
        bytes(client.received),
        bytes(client.unread),
        tuple((each.path, each.token, each.prefix) for each in client.watches),
        {number: _transaction(each) for number, each in client.transactions.items()},
        client.next_transaction,
        client.ignored,
    )


def _restored_client(domid: int, state: ClientState, tree: Tree) -> Connection:
    return Connection(
        domid,
        bytearray(state.received),
        bytearray(state.unread),
        [StoreWatch(*each) for each in state.watches],
        {number: _restored_transaction(each, tree) for number, each in state.transactions.items()},
        state.next_transaction,
        state.ignored,
    )


def _transaction(transaction: Transaction) -> TransactionState:
    view = transaction.view
    changed = {path: None if node is None else _node(node) for path, node in view.changed.items()}
    changes = tuple((each.path, each.exact) for each in transaction.changes)
    return TransactionState(dict(view.seen), changed, dict(view.owned_more), changes)


def _restored_transaction(state: TransactionState, tree: Tree) -> Transaction:
    changed = {path: None if node is None else _restored_node(node) for path, node in state.changed.items()}
    view = View(tree, dict(state.seen), changed, dict(state.owned_more))
    return Transaction(view, [TreeChange(*each) for each in state.changes])
