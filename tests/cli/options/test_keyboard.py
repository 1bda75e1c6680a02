"""Where console input comes from, and that a terminal is left as it was found."""

from __future__ import annotations

import os
import pty
import sys
import termios
from pathlib import Path

import pytest

from pvops_core.cli.options.keyboard import Input, open_input, unbuffered
from pvops_core.errors import UsageError
from pvops_core.runs.inputfeeder import InputFeeder


def test_a_file_is_there_from_the_start(tmp_path: Path) -> None:
    file = tmp_path / "typed"
    file.write_bytes(b"\x00keys\r")
    assert open_input(str(file)) == Input(b"\x00keys\r")
    with pytest.raises(UsageError, match="nowhere"):
        open_input(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("source", [None, "-"])
def test_so_is_a_file_on_standard_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str | None) -> None:
    file = tmp_path / "typed"
    file.write_bytes(b"keys")
    with file.open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert open_input(source) == Input(b"keys")


def test_a_pipe_is_read_as_it_comes_or_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"keys")
    os.close(writing)
    with os.fdopen(reading) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        given = open_input(None)
        assert given.feeder
        assert (given.feeder.descriptor, given.attended) == (reading, False)
        assert open_input("-") == Input(b"keys")


def test_nobody_types_where_there_is_nothing_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(os.devnull).open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert open_input(None) == Input()
    assert open_input(None) == Input(), "standard input is closed"


def test_a_terminal_gives_each_key_and_is_left_as_it_was() -> None:
    master, slave = pty.openpty()
    try:
        before = termios.tcgetattr(slave)
        given = Input(feeder=InputFeeder(slave))
        assert given.attended
        with unbuffered(given):
            now = termios.tcgetattr(slave)
            assert not now[3] & (termios.ICANON | termios.ECHO)
            assert now[3] & termios.ISIG, "Ctrl-C still ends pvops"
            os.write(master, b"\r")
            assert os.read(slave, 1) == b"\r"
        assert termios.tcgetattr(slave) == before
    finally:
        os.close(master)
        os.close(slave)
