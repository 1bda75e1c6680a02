"""A terminal is raw while a guest has it and as it was before at every other time, however that ends."""

from __future__ import annotations

import os
import pty
import signal
import sys
import termios
import time
from collections.abc import Iterator

import pexpect
import pytest

from pvops_core.cli.terminal.raw import RawTerminal, is_ours, size_word

HOLDING = """
import sys, time
from pvops_core.cli.terminal.raw import RawTerminal
ended = []
with RawTerminal(0, ended.append).entered():
    print("raw")
    while not ended:
        time.sleep(0.01)
        {each}
print("ended", ended)
"""


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def test_every_key_and_byte_passes_and_it_is_left_as_it_was(terminal: tuple[int, int]) -> None:
    master, slave = terminal
    before = termios.tcgetattr(slave)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)]
    with RawTerminal(slave, lambda _name: None).entered():
        now = termios.tcgetattr(slave)
        assert not now[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
        assert not now[0] & (termios.ICRNL | termios.IXON)
        assert not now[1] & termios.OPOST
        os.write(master, b"\x03\x13\r")
        assert os.read(slave, 3) == b"\x03\x13\r"
    assert termios.tcgetattr(slave) == before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)] == handlers


def test_it_is_put_back_when_something_is_raised(terminal: tuple[int, int]) -> None:
    before = termios.tcgetattr(terminal[1])
    with pytest.raises(RuntimeError), RawTerminal(terminal[1], lambda _name: None).entered():
        raise RuntimeError
    assert termios.tcgetattr(terminal[1]) == before


def test_a_terminal_that_goes_away_is_no_error() -> None:
    master, slave = pty.openpty()
    with RawTerminal(slave, lambda _name: None).entered():
        os.close(master)
    os.close(slave)


def holding(each: str = "") -> tuple[pexpect.spawn, list[object]]:
    child = pexpect.spawn(sys.executable, ["-c", HOLDING.replace("{each}", each)], timeout=60)
    before = termios.tcgetattr(child.child_fd)
    child.expect("raw\r\n")
    assert not is_cooked(child)
    return child, before


def is_cooked(child: pexpect.spawn) -> bool:
    flags: int = termios.tcgetattr(child.child_fd)[3]
    return bool(flags & termios.ICANON)


def soon(child: pexpect.spawn, *, cooked: bool) -> None:
    until = time.monotonic() + 30
    while is_cooked(child) is not cooked:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_asks_the_run_to_end(number: signal.Signals) -> None:
    child, before = holding()
    child.kill(number)
    child.expect(f"ended \\['{number.name}'\\]")
    assert termios.tcgetattr(child.child_fd) == before
    child.expect(pexpect.EOF)
    child.close()


def test_a_crash_of_pvops_leaves_it_as_it_was() -> None:
    child, before = holding("raise KeyboardInterrupt")
    child.expect("KeyboardInterrupt")
    assert termios.tcgetattr(child.child_fd) == before
    child.close()


def test_a_process_that_is_stopped_gives_it_back_and_takes_it_again() -> None:
    child, before = holding()
    child.kill(signal.SIGTSTP)
    soon(child, cooked=True)
    assert termios.tcgetattr(child.child_fd) == before
    assert os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    child.kill(signal.SIGCONT)
    soon(child, cooked=False)
    child.kill(signal.SIGTERM)
    child.expect("ended")
    child.close()


def test_a_terminal_tells_its_size_once(terminal: tuple[int, int]) -> None:
    assert size_word(terminal[1], "quiet") == "", "it knows none"
    termios.tcsetwinsize(terminal[0], (31, 97))
    assert size_word(terminal[1], "quiet") == "pvops.size=31x97"
    assert size_word(terminal[1], "pvops.size=1x2 quiet") == "", "somebody has said it"
    reading, writing = os.pipe()
    assert size_word(reading, "") == "", "it is none"
    os.close(reading)
    os.close(writing)


def test_what_is_in_the_background_is_not_ours(terminal: tuple[int, int]) -> None:
    assert not is_ours(terminal[1])
