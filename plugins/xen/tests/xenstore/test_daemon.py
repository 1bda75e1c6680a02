"""Requests and watches: who hears of what."""

from __future__ import annotations

import struct

import pytest
from pvops_xen.xenstore.toolstack import request_shutdown
from pvops_xen.xenstore.wire import PAYLOAD_MAX, BadClientError, Type

from plugins.xen.tests.xenstore_rig import DOMID, HOME, Client


def test_requests_that_make_no_sense(client: Client) -> None:
    assert client.ask(Type.READ, raw=b"name") == b"einval"
    assert client.ask(Type.READ, raw=b"") == b"einval"
    assert client.ask(Type.READ, "name", "vm") == b"einval"
    assert client.ask(Type.WRITE, raw=b"data") == b"einval"
    assert client.ask(Type.WATCH, "data") == b"einval"
    assert client.ask(Type.SET_PERMS, "data") == b"einval"
    assert client.ask(Type.DIRECTORY_PART, "data") == b"einval"
    assert client.ask(Type.READ, "name", transaction=5) == b"enoent"
    assert client.ask(Type.TRANSACTION_END, "T") == b"enoent"
    for kind in (Type.WATCH_EVENT, Type.ERROR, 20, 99):
        assert client.ask(kind, "x") == b"enosys"
    for kind in (Type.CONTROL, Type.INTRODUCE, Type.RELEASE, Type.RESUME, Type.SET_TARGET):
        assert client.ask(kind, "1") == b"eacces"
    with pytest.raises(BadClientError, match="4097 bytes"):
        client.daemon.receive(client.connection, struct.pack("<4I", Type.READ, 0, 0, PAYLOAD_MAX + 1))


def test_watches(client: Client) -> None:
    assert client.ask(Type.WATCH, "data", "one") == b"OK\0"
    assert client.ask(Type.WATCH, f"{HOME}/data/x", "two") == b"OK\0"
    assert client.ask(Type.WATCH, "data", "one") == b"eexist"
    assert client.hear() == [("data", "one"), (f"{HOME}/data/x", "two")]
    client.write("data/x/y", b"1")
    assert client.hear() == [("data/x/y", "one"), (f"{HOME}/data/x/y", "two")]
    client.ask(Type.RM, "data")
    assert client.hear() == [("data", "one"), (f"{HOME}/data/x", "two"), ("data", "one")]
    assert client.ask(Type.UNWATCH, "data", "two") == b"enoent"
    assert client.ask(Type.UNWATCH, "data", "one") == b"OK\0"
    assert client.ask(Type.RESET_WATCHES, "") == b"OK\0"
    request_shutdown(client.daemon, DOMID, "poweroff")
    assert client.hear() == []
    for number in range(128):
        assert client.ask(Type.WATCH, "@releaseDomain", str(number)) == b"OK\0"
    assert client.ask(Type.WATCH, "data", "more") == b"e2big"


def test_nobody_hears_of_what_it_may_not_read(client: Client) -> None:
    client.ask(Type.WATCH, "/", "all")
    client.hear()
    client.daemon.as_toolstack().write("/local/domain/0/secret", b"x")
    client.daemon.as_toolstack().write(f"{HOME}/name", b"x")
    assert client.hear() == [(f"{HOME}/name", "all")]
