from __future__ import annotations

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from pvops_core.runs.worker.console import ConsoleStream


def test_text_comes_while_the_run_goes_on() -> None:
    console = bytearray()
    told = threading.Event()
    got: list[str] = []

    def send(text: str) -> None:
        got.append(text)
        told.set()

    with ConsoleStream(console, send):
        console += b"guest: "
        assert told.wait(10)
        assert got == ["guest: "]
        console += b"hello"
    assert "".join(got) == "guest: hello"


@settings(derandomize=True, max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=6) | st.binary(max_size=6), max_size=6))
def test_all_text_comes_once_whatever_its_bytes(pieces: list[str | bytes]) -> None:
    console = bytearray()
    got: list[str] = []
    with ConsoleStream(console, got.append):
        for piece in pieces:
            console += piece.encode() if isinstance(piece, str) else piece
    assert "".join(got) == console.decode(errors="replace")
