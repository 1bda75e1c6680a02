"""Transactions: all or nothing, and seen by others when they are done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_xen.xenstore.store import QUOTA_NODES
from pvops_xen.xenstore.wire import Type

if TYPE_CHECKING:
    from pvops_xen.xenstore.daemon import Daemon

from plugins.xen.tests.xenstore_rig import DOMID, Client


def test_a_transaction_is_seen_by_others_when_it_is_done(client: Client) -> None:
    client.ask(Type.WATCH, "data", "w")
    client.hear()
    number = int(client.ask(Type.TRANSACTION_START, "")[:-1])
    client.write("data/t", b"1", number)
    client.ask(Type.MKDIR, "data/u", transaction=number)
    client.ask(Type.RM, "data/u", transaction=number)
    assert client.ask(Type.READ, "data/t", transaction=number) == b"1"
    assert client.ask(Type.READ, "data/t") == b"enoent"
    assert client.hear() == []
    assert client.ask(Type.TRANSACTION_END, "maybe", transaction=number) == b"einval"
    assert client.ask(Type.TRANSACTION_START, "", transaction=number) == b"ebusy"
    assert client.ask(Type.TRANSACTION_END, "T", transaction=number) == b"OK\0"
    assert client.ask(Type.READ, "data/t") == b"1"
    assert client.hear()[0] == ("data/t", "w")
    assert client.ask(Type.READ, "data/t", transaction=number) == b"enoent"


def test_of_two_that_touch_one_node_the_second_tries_again(client: Client) -> None:
    first, second, third = (int(client.ask(Type.TRANSACTION_START, "")[:-1]) for _ in range(3))
    client.write("data/x", b"1", first)
    client.write("data/y", b"2", second)  # both change the list of data's children
    assert client.ask(Type.READ, "name", transaction=third) == b"guest"
    assert client.ask(Type.TRANSACTION_END, "T", transaction=first) == b"OK\0"
    assert client.ask(Type.TRANSACTION_END, "T", transaction=second) == b"eagain"
    assert client.ask(Type.TRANSACTION_END, "T", transaction=third) == b"OK\0"
    assert client.ask(Type.READ, "data/y") == b"enoent"
    aborted = int(client.ask(Type.TRANSACTION_START, "")[:-1])
    client.write("data/z", b"", aborted)
    assert client.ask(Type.TRANSACTION_END, "F", transaction=aborted) == b"OK\0"
    assert client.ask(Type.READ, "data/z") == b"enoent"
    for _ in range(10):
        client.ask(Type.TRANSACTION_START, "")
    assert client.ask(Type.TRANSACTION_START, "") == b"enospc"


def test_quotas(client: Client) -> None:
    assert client.write("data/big", b"x" * 2020) == b"enospc"
    assert client.ask(Type.READ, "data/big") == b"enoent"
    owned = client.daemon.tree.owned(DOMID)
    parents = [f"data/{index}" for index in range(11)]
    made = 0
    for index in range(QUOTA_NODES):
        if client.ask(Type.MKDIR, f"{parents[index % 11]}/{index}") != b"OK\0":
            break
        made += 1
    assert client.daemon.tree.owned(DOMID) == QUOTA_NODES == owned + made + 11
    client.ask(Type.RM, "data/0")
    assert client.ask(Type.MKDIR, "data/again") == b"OK\0"


acts = st.sampled_from(["write", "mkdir", "rm", "start", "commit", "abort"])
paths = st.sampled_from(["data", "data/a", "data/a/b", "data/c", "attr/x", "name"])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(acts, paths, st.integers(0, 2))))
def test_transactions_are_all_or_nothing(steps: list[tuple[str, str, int]]) -> None:
    client = Client()
    open_ones: list[int] = []
    for what, path, which in steps:
        number = open_ones[which - 1] if 0 < which <= len(open_ones) else 0
        before = dict(client.daemon.tree.nodes)
        if what == "start":
            if len(open_ones) < 2:
                open_ones.append(int(client.ask(Type.TRANSACTION_START, "")[:-1]))
        elif what in {"commit", "abort"} and number:
            reply = client.ask(Type.TRANSACTION_END, "T" if what == "commit" else "F", transaction=number)
            open_ones.remove(number)
            if reply != b"OK\0" or what == "abort":
                assert client.daemon.tree.nodes == before
        elif what in {"write", "mkdir", "rm"}:
            kind = {"write": Type.WRITE, "mkdir": Type.MKDIR, "rm": Type.RM}[what]
            client.ask(kind, transaction=number, raw=path.encode() + b"\0")
            if number:
                assert client.daemon.tree.nodes == before
        _check(client.daemon)


def _check(daemon: Daemon) -> None:
    nodes = daemon.tree.nodes
    children = {f"{path.rstrip('/')}/{name}" for path, node in nodes.items() for name in node.children}
    assert children == nodes.keys() - {"/"}
    counts: dict[int, int] = {}
    for node in nodes.values():
        counts[node.owner] = counts.get(node.owner, 0) + 1
    assert {domid: count for domid, count in daemon.tree.counts.items() if count} == counts
