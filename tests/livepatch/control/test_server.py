"""Asking a running machine by its socket: verbs, files, errors, who may, and that the machine decides when."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pvops_core.cli import main
from pvops_core.errors import UsageError
from pvops_core.livepatch.control.client import NoAnswerError, ask
from pvops_core.livepatch.control.findings import VerbReply
from pvops_core.livepatch.control.report import LivepatchReport
from pvops_core.livepatch.control.server import Server
from tests.livepatch.conftest import NEW, Make, Patched
from tests.livepatch.control.driving import files


class Running:
    """A guest that runs in this thread while others ask."""

    def __init__(self, made: Patched, path: Path, owner: int | None = None) -> None:
        self.made = made
        self.path = path
        self.server = Server(path, made.livepatch, LivepatchReport(made.livepatch, lambda _line: None), owner)

    def while_asking(self, asking: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever it gives
        """Let the machine run until somebody else has asked and been answered."""
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(asking()), daemon=True)
        thread.start()
        while thread.is_alive():
            self.made.run(10_000)
        return found[0]

    def ask(self, *words: str) -> VerbReply:
        """Ask as a client does."""
        return self.while_asking(lambda: ask(self.path, words, files(self.made)))  # type: ignore[no-any-return]


@pytest.fixture
def running(patched: Make, tmp_path: Path) -> Iterator[Running]:
    made = Running(patched(vcpus=2), tmp_path / "socket")
    yield made
    made.server.close()


def test_a_session(running: Running) -> None:
    assert running.ask("upload", "hello", "some/hello.livepatch").exit == 0
    reply = running.ask("apply", "hello")
    assert reply.exit == 0
    assert reply.lines == ("Applying hello... completed",)
    assert reply.ns
    assert reply.ns <= running.made.machine.clock.ns
    assert [(each.name, each.state) for each in reply.payloads or ()] == [("hello", "APPLIED")]
    assert running.made.stored() == {NEW}
    assert running.ask("unload", "hello").exit == 1
    assert running.ask("revert", "hello").exit == 0
    noted = [event for event in running.made.machine.log.events if dict(event.fields).get("what") == "request"]
    assert len(noted) == 4, "the event log tells what was asked and when"


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"{}\n", b"[1]\n", b'{"words": ["list"], "files": {"a": "!"}}\n', b"x" * 100]
)
def test_what_is_no_request_is_answered(running: Running, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(running.path))
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)
        reply = json.loads(connection.makefile().readline())
    assert reply["exit"] == 1
    assert "request" in reply["error"]


def test_bad_commands_are_told_of(running: Running) -> None:
    for words in (["frob"], ["apply"], ["upload", "x", "not-sent"]):
        assert running.ask(*words).error


def test_only_its_owner_may_ask(patched: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a machine of another user's root is root, and anybody else is nobody."""
    path = tmp_path / "socket"
    with Running(patched(), path).server:
        assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr("pvops_core.livepatch.control.server.ROOT", os.geteuid() + 1)
    made = Running(patched(), path, owner=os.geteuid() + 2)
    with made.server:
        assert "EPERM" in str(made.ask("list").error)


@pytest.mark.parametrize("size", [0, 1 << 20])
def test_who_may_not_is_told_before_the_request_is_read(
    patched: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A reply that is sent while the other still writes must not be lost with the connection."""
    monkeypatch.setattr("pvops_core.livepatch.control.server.ROOT", os.geteuid() + 1)
    made = Running(patched(), tmp_path / "socket", owner=os.geteuid() + 2)
    with made.server:
        for _ in range(20):
            reply = ask(made.path, ["upload", "hello", "file"], {"file": bytes(size)})
            assert "EPERM" in str(reply.error)


def test_a_host_short_of_descriptors_is_waited_for(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    accept, failures = socket.socket.accept, [errno.EMFILE, errno.ECONNABORTED]

    def sometimes(listening: socket.socket) -> Any:  # noqa: ANN401 - the socket's own type
        if failures:
            raise OSError(failures.pop(), "for a moment")
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", sometimes)
    assert [running.ask("list").exit for _ in range(3)] == [0, 0, 0]
    assert not failures


def test_sockets_that_cannot_be(running: Running, patched: Make, tmp_path: Path) -> None:
    for path in (running.path, tmp_path / "none" / "socket", tmp_path / ("x" * 200), tmp_path):
        with pytest.raises(UsageError, match="no socket can be made"):
            Running(patched(), path)
    left = tmp_path / "left"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left))
    made = Running(patched(), left)
    with made.server:
        assert made.ask("list").exit == 0
    assert not left.exists()
    with pytest.raises(NoAnswerError):
        ask(left, ["list"], {})


def test_who_waits_when_the_machine_ends_is_told(running: Running) -> None:
    found: list[VerbReply] = []
    thread = threading.Thread(target=lambda: found.append(ask(running.path, ["list"], {})))
    thread.start()
    while running.server._asked.empty():
        pass
    running.server.close()
    thread.join(10)
    running.server = Server(running.path, running.made.livepatch, LivepatchReport(running.made.livepatch, print))
    assert found == [VerbReply(1, error="the machine has ended")]


def test_the_verbs_of_the_command_line(running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    payload = tmp_path / "hello.livepatch"
    payload.write_bytes(files(running.made)["some/hello.livepatch"])
    target = tmp_path / "json"

    def verb(*words: str) -> int:
        command = ["livepatch", *words, "--socket", str(running.path), "--json", str(target)]
        return int(running.while_asking(lambda: main(command)))

    for words, code in (
        (("load", str(payload)), 0),
        (("list",), 0),
        (("get", "hello"), 0),
        (("apply", "hello", "--nodeps"), 0),
        (("revert", "hello"), 0),
        (("replace", "hello"), 0),
        (("unload", "hello"), 1),
        (("upload", "hello", str(payload), "--force"), 1),
        (("revert", "nobody"), 1),
    ):
        assert verb(*words) == code, words
        document = json.loads(target.read_text())
        assert document["schema"] == "pvops.livepatch/1"
        assert document["exit"] == code
    assert "Applying hello... completed" in capsys.readouterr().out
    assert main(["livepatch", "list", "--socket", str(tmp_path / "nobody")]) == 3
    assert "no machine answers" in capsys.readouterr().err
