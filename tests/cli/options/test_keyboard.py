"""Where console input comes from, and that a terminal is left as it was found."""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path

import pytest

from pvops_core.cli.options import keyboard
from pvops_core.cli.options.keyboard import Input, open_input
from pvops_core.cli.terminal.person import CLOSED, LEFT
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


def test_a_person_is_one_at_a_terminal_that_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    try:
        with os.fdopen(slave, "rb", buffering=0, closefd=False) as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            assert open_input(None) == Input(), "a terminal that another process group has in front"
            monkeypatch.setattr(keyboard, "is_ours", lambda _descriptor: True)
            given = open_input(None)
        assert given.feeder
        assert given.attended
        assert not given.broken_off
        given.feeder.leave(LEFT)
        assert not given.broken_off
    finally:
        os.close(master)
        os.close(slave)


def test_a_run_that_its_terminal_or_a_signal_ended_was_broken_off() -> None:
    given = Input(feeder=InputFeeder(0))
    assert given.feeder
    given.feeder.leave(CLOSED)
    given.feeder.leave(LEFT)
    assert given.broken_off
    assert given.feeder.leaving == CLOSED, "the first reason counts"
