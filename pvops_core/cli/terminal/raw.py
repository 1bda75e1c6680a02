"""A terminal that gives every key as it is typed, shows every byte as it comes, and is put back however that ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from types import FrameType

_ENDING: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_SIZE: Final = "pvops.size"


def is_ours(descriptor: int) -> bool:
    """It is a terminal, and this process may read it: it is not in the background."""
    try:
        return os.isatty(descriptor) and os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False


def size_word(descriptor: int, cmdline: str) -> str:
    """The word of a kernel's command line that tells the first process the terminal's rows and columns.

    Neither a serial port nor Xen's console ring can carry a size. Empty where the command line has such a word, or the
    terminal does not know.
    """
    try:
        size = os.get_terminal_size(descriptor)
    except OSError:
        return ""
    known = size.lines > 0 < size.columns and not any(word.startswith(f"{_SIZE}=") for word in cmdline.split())
    return f"{_SIZE}={size.lines}x{size.columns}" if known else ""


@attrs.define(eq=False)
class RawTerminal:
    """A terminal, raw while entered.

    Attributes:
        descriptor: of the terminal.
        ended: told of a signal that is to end this process, by name; the handler only asks the run to end.
    """

    descriptor: int
    ended: Callable[[str], None]
    _before: list[Any] = attrs.field(factory=list, init=False)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Raw from here on to the end, but for the time that the process is stopped."""
        self._before = termios.tcgetattr(self.descriptor)
        handlers: dict[int, Callable[[int, FrameType | None], None]] = dict.fromkeys(_ENDING, self._end)
        handlers |= {signal.SIGTSTP: self._suspend, signal.SIGCONT: self._go_on}
        olds = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            self._make_raw()
            with _returning():
                yield
        finally:
            self._put_back()
            for number, old in olds.items():
                signal.signal(number, old)

    def _make_raw(self) -> None:
        with contextlib.suppress(termios.error):
            tty.setraw(self.descriptor, termios.TCSADRAIN)

    def _put_back(self) -> None:
        with contextlib.suppress(termios.error):  # it is gone
            termios.tcsetattr(self.descriptor, termios.TCSADRAIN, self._before)

    def _end(self, number: int, _frame: FrameType | None) -> None:
        self.ended(signal.Signals(number).name)

    def _suspend(self, _number: int, _frame: FrameType | None) -> None:
        self._put_back()
        os.kill(os.getpid(), signal.SIGSTOP)  # as SIGTSTP would, had it no handler

    def _go_on(self, _number: int, _frame: FrameType | None) -> None:
        if is_ours(self.descriptor):  # else whoever is in front has set it up
            self._make_raw()


@contextlib.contextmanager
def _returning() -> Iterator[None]:
    """While entered, a line's end in what this process says takes the cursor back too, which a raw terminal does not.

    The guest's bytes go past this.
    """
    streams = [each for each in (sys.stdout, sys.stderr) if isinstance(each, TextIOWrapper) and each.isatty()]
    for stream in streams:
        stream.reconfigure(newline="\r\n")
    try:
        yield
    finally:
        for stream in streams:
            with contextlib.suppress(OSError):
                stream.reconfigure(newline=None)
