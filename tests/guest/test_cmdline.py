"""A command line reaches a guest as the bytes that were given, or is refused whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.errors import UsageError
from pvops_core.guest.cmdline import command_line


@given(st.binary(max_size=64).filter(lambda line: b"\0" not in line))
def test_any_bytes_of_an_argument_come_through(line: bytes) -> None:
    assert command_line(line.decode("utf-8", "surrogateescape"), 64) == line


@pytest.mark.parametrize(
    ("text", "said"),
    [("a\0b", "a NUL at byte 1"), ("a\ud800", r"letter 1, '\\ud800', stands for no byte"), ("é" * 3, "of 6 bytes")],
)
def test_what_no_guest_can_be_given_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        command_line(text, 5)


def test_the_last_byte_of_room_is_used() -> None:
    assert command_line("x" * 5, 5) == b"xxxxx"
