"""What Ctrl-A does: a table, and everything else is the guest's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pvops_core.cli.terminal.escapes import PREFIX, Escape, Escapes


def made() -> tuple[Escapes, list[str], list[str]]:
    said: list[str] = []
    done: list[str] = []
    escapes = Escapes({}, said.append)
    escapes.table |= {
        "x": Escape("end the run", lambda: done.append("x")),
        "a": Escape("send Ctrl-A", lambda: PREFIX),
        "h": Escape("this help", escapes.help),
    }
    return escapes, said, done


def kept(escapes: Escapes, typed: bytes) -> bytes:
    return b"".join(escapes(typed))


def test_each_key_behind_ctrl_a_is_in_the_table() -> None:
    escapes, said, done = made()
    parts = escapes(b"ls\r\x01xq")
    assert next(parts) == b"ls\r"
    assert done == [], "what stands before an escape comes before it"
    assert next(parts) == b"q"
    assert done == ["x"]
    assert kept(escapes, b"\x01a") == kept(escapes, b"\x01\x01") == PREFIX
    assert kept(escapes, b"\x01h") == b""
    assert said == ["Ctrl-A x  end the run", "Ctrl-A a  send Ctrl-A", "Ctrl-A h  this help"]


def test_a_key_that_does_nothing_says_so_and_is_not_the_guests() -> None:
    escapes, said, _ = made()
    assert kept(escapes, b"\x01\xff") == b""
    assert said == ["Ctrl-A h tells what Ctrl-A does here"]
    assert kept(escapes, b"k") == b"k"


@given(st.binary(max_size=20), st.integers(0, 20))
def test_it_does_not_matter_how_typing_is_cut(typed: bytes, at: int) -> None:
    whole, in_parts = made(), made()
    assert kept(whole[0], typed) == kept(in_parts[0], typed[:at]) + kept(in_parts[0], typed[at:])
    assert whole[1:] == in_parts[1:]
