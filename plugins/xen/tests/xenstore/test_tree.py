"""Nodes: values, rights, paths."""

from __future__ import annotations

import pytest
from pvops_xen.xenstore.wire import Type

from plugins.xen.tests.xenstore_rig import HOME, Client


def test_values_are_bytes_and_nodes_come_and_go(client: Client) -> None:
    assert client.write("data/a/b", b"\0\xff") == b"OK\0"
    assert client.ask(Type.READ, "data/a/b") == b"\0\xff"
    assert client.ask(Type.READ, "data/a") == b""
    assert client.ask(Type.MKDIR, "data/a/c") == client.ask(Type.MKDIR, "data/a/c") == b"OK\0"
    assert client.ask(Type.DIRECTORY, "data/a") == b"b\0c\0"
    assert client.ask(Type.RM, "data/a") == b"OK\0"
    assert client.ask(Type.READ, "data/a/b") == b"enoent"
    assert client.ask(Type.RM, "data/a") == b"OK\0"
    assert client.ask(Type.RM, "data/a/b") == b"enoent"
    assert client.ask(Type.DIRECTORY, "data") == b""


def test_rights(client: Client) -> None:
    assert client.write("name", b"mine") == b"eacces"
    assert client.ask(Type.MKDIR, f"{HOME}/new") == b"eacces"
    assert client.ask(Type.READ, "/local/domain/0/x") == b"eacces"
    assert client.ask(Type.READ, "nothing") == b"enoent"
    assert client.ask(Type.RM, "/") == b"eacces"
    assert client.ask(Type.GET_PERMS, "data") == b"n3\0"
    assert client.ask(Type.GET_PERMS, HOME) == b"n0\0r3\0"
    assert client.ask(Type.SET_PERMS, "data", "b3", "r7") == b"OK\0"
    assert client.ask(Type.GET_PERMS, "data") == b"b3\0r7\0"
    assert client.ask(Type.SET_PERMS, "data", "b7") == b"eperm"
    assert client.ask(Type.SET_PERMS, "name", "b3") == b"eacces"
    assert client.ask(Type.SET_PERMS, "data", *["r1"] * 6) == b"enospc"
    for word in ("x3", "b", "b-1", "b3x"):
        assert client.ask(Type.SET_PERMS, "data", word) == b"einval"
    client.write("data/kid", b"")
    assert client.ask(Type.GET_PERMS, "data/kid") == b"b3\0r7\0"


@pytest.mark.parametrize("path", ["", "a//b", "a/", "a b", "/a\x7f", "/" + "x" * 3072, "a" * 3080])
def test_paths_that_are_none(client: Client, path: str) -> None:
    for kind in (Type.READ, Type.DIRECTORY, Type.MKDIR, Type.RM, Type.GET_PERMS):
        assert client.ask(kind, path) == b"einval"
    assert client.write(path, b"") == b"einval"
    assert client.ask(Type.WATCH, path, "t") == b"einval"


def test_a_long_directory_comes_in_parts(client: Client) -> None:
    names = [f"{index:0120d}" for index in range(60)]
    tree = client.daemon.as_toolstack()
    for name in names:
        tree.mkdir(f"{HOME}/device/{name}")
    assert client.ask(Type.DIRECTORY, "device") == b"e2big"
    found = b""
    generations = set()
    while not found.endswith(b"\0\0"):
        generation, _, part = client.ask(Type.DIRECTORY_PART, "device", str(len(found))).partition(b"\0")
        generations.add(generation)
        found += part
    assert found.decode().split("\0")[:-2] == ["suspend", *names]
    assert len(generations) == 1
    assert client.ask(Type.DIRECTORY_PART, "device", "99999").endswith(b"\0\0")
