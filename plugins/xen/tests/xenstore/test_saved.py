"""The store's state: in snapshots, and as plain data."""

from __future__ import annotations

import copy

from pvops_xen.xenstore import saved
from pvops_xen.xenstore.wire import Type

from plugins.xen.tests.xenstore_rig import DOMID, HOME, Client, Guest
from pvops_core.machine.run.stateful import where_not_plain


def test_the_state_is_part_of_snapshots(guest: Guest) -> None:
    saved = guest.service.save()
    guest.service.daemon.as_toolstack().write("/x", b"1")
    guest.service.load(saved)
    assert guest.service.daemon.tree.get("/x") is None


def test_a_daemon_comes_back_from_plain_data_as_it_was_with_what_is_under_way(client: Client) -> None:
    client.write(f"{HOME}/data/a", b"1")
    client.write(f"{HOME}/data/b", b"2")
    client.ask(Type.WATCH, "data", "token")
    client.hear()
    number = int(client.ask(Type.TRANSACTION_START, "").rstrip(b"\0"))
    client.write(f"{HOME}/data/a", b"3", transaction=number)
    client.ask(Type.RM, f"{HOME}/data/b", transaction=number)
    client.connection.received += b"half"
    state = saved.save(client.daemon)
    assert where_not_plain(state) is None
    before = copy.deepcopy(client.daemon)
    client.connection.received.clear()
    assert client.ask(Type.TRANSACTION_END, "T", transaction=number) == b"OK\0"
    for _ in range(2):
        client.daemon = saved.load(state)
        assert client.daemon == before
        assert saved.save(client.daemon) == state
        client.connection = client.daemon.clients[DOMID]
        client.connection.received.clear()
        client.hear()
        assert client.ask(Type.READ, f"{HOME}/data/a") == b"1"
        assert client.ask(Type.TRANSACTION_END, "T", transaction=number) == b"OK\0"
        assert client.ask(Type.READ, f"{HOME}/data/a") == b"3"
        assert client.ask(Type.READ, f"{HOME}/data/b") == b"enoent"
        assert set(client.hear()) == {("data/a", "token"), ("data/b", "token")}
