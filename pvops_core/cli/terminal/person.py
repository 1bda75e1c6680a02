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
CLOSED: Final = "the terminal was closed"


class Person:
    """Somebody at a terminal.

    Args:
        feeder: reads it.
        text: where the guest's console is shown.
        vcpus: of the guest.
        no_prompt: why no prompt can be opened while the guest runs; empty if one can.

    Attributes:
        screen: what he sees.
        escapes: the keys that are not the guest's; a verb may add some.
    """

    def __init__(self, feeder: InputFeeder, text: TextIO, vcpus: int, no_prompt: str = "") -> None:
        self._feeder, self._no_prompt = feeder, no_prompt
        self.screen = Screen(text, vcpus, lambda: feeder.leave(CLOSED))
        self.escapes = Escapes({}, self.screen.say)
        self.escapes.table |= {
            "x": Escape("end the run; once more if it does not", self._leave),
            "a": Escape("send Ctrl-A to the guest", lambda: PREFIX),
            "c": Escape("open a Python prompt, at which the guest stands still", self._prompt),
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

    def _prompt(self) -> None:
        if self._no_prompt:
            self.screen.say(f"no prompt: {self._no_prompt}")
        else:
            self._feeder.ask()

    def _leave(self) -> None:
        if self._feeder.leaving:
            signal.raise_signal(signal.SIGINT)  # who asks twice does not want to wait
        self._feeder.leave(LEFT)
