"""Somebody who sits at a terminal while one guest runs: what he types, sees, and what pvops does for him."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

from pvops_core.cli.terminal.escapes import PREFIX, Escape, Escapes
from pvops_core.cli.terminal.raw import RawTerminal
from pvops_core.cli.terminal.screen import Screen

if TYPE_CHECKING:
    from pvops_core.runs.inputfeeder import InputFeeder

LEFT: Final = "Ctrl-A x"
_PROMPT: Final = "a Python prompt on a kernel: pvops shell KERNEL --stop-at PLACE"
CLOSED: Final = "the terminal was closed"


class Person:
    """Somebody at a terminal.

    Args:
        feeder: reads it.
        text: where the guest's console is shown.
        vcpus: of the guest.

    Attributes:
        screen: what he sees.
        escapes: the keys that are not the guest's; a verb may add some.
    """

    def __init__(self, feeder: InputFeeder, text: TextIO, vcpus: int) -> None:
        self._feeder = feeder
        self.screen = Screen(text, vcpus, lambda: feeder.leave(CLOSED))
        self.escapes = Escapes({}, self.screen.say)
        self.escapes.table |= {
            "x": Escape("end the run; once more if it does not", self._leave),
            "a": Escape("send Ctrl-A to the guest", lambda: PREFIX),
            "c": Escape("where a Python prompt is", lambda: self.screen.say(_PROMPT)),
            "h": Escape("this help", self.escapes.help),
        }
        feeder.keys = self.escapes

    @contextmanager
    def present(self) -> Iterator[None]:
        """While entered, the terminal is raw, and signals that would end this process end the run."""
        with RawTerminal(self._feeder.descriptor, self._feeder.leave).entered():
            try:
                yield
            finally:
                self.screen.leave()

    def _leave(self) -> None:
        if self._feeder.leaving:
            signal.raise_signal(signal.SIGINT)  # who asks twice does not want to wait
        self._feeder.leave(LEFT)
