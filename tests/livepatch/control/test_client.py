"""The other end of the socket: nobody there, or somebody who is no machine."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from pvops_core.livepatch.control.client import NoAnswerError, ask


def answering(path: Path, reply: bytes) -> threading.Thread:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.makefile("rb").readline()
            connection.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_a_reply_is_read_whole(tmp_path: Path) -> None:
    thread = answering(tmp_path / "socket", b'{"exit": 2, "lines": ["busy"]}\n')
    reply = ask(tmp_path / "socket", ["apply", "p"], {})
    thread.join()
    assert (reply.exit, reply.lines) == (2, ("busy",))


@pytest.mark.parametrize("reply", [b"", b"\n", b"{}\n", b"[" * 100_000 + b"\n", b'{"exit": "no"}\n'])
def test_what_is_no_reply_is_no_answer(tmp_path: Path, reply: bytes) -> None:
    thread = answering(tmp_path / "socket", reply)
    with pytest.raises(NoAnswerError, match="no machine answers"):
        ask(tmp_path / "socket", ["list"], {})
    thread.join()


def test_nobody_there_is_told_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(NoAnswerError, match="nothing: no machine answers"):
        ask(tmp_path / "nothing", ["list"], {})
