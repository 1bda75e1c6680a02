"""Timed commands for the live patches of a guest: what happens when, one command a line.

    # when              command
    300us               upload hello hello.livepatch
    1.5ms               apply hello
    +10us               list
    when "login:"       revert hello

A time is virtual, from the start of the run; with a plus sign, from the end of the command before. Units are ns, us,
ms and s. A text is waited for on the guest's console, in what is printed after the end of the command before. A command
begins when its time has come and the one before is over.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import UsageError
from pvops_core.livepatch.control.tool import check_words

if TYPE_CHECKING:
    from pvops_core.livepatch.control.tool import Tool, Verb
    from pvops_core.machine import Machine

_WHEN = "when"
# \Z, not $: a newline behind the unit would pass.
_TIME = re.compile(r"(\+?)(\d+(?:\.\d+)?)(ns|us|ms|s)\Z")
_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}


@attrs.frozen
class Step:
    """One line: when, from the start or from the end of the one before, after which text on the console, and what."""

    ns: int
    relative: bool
    words: tuple[str, ...]
    text: str = ""

    @property
    def command(self) -> str:
        """What is done, as one line."""
        return shlex.join(self.words)


def read_script(text: str, path: str) -> tuple[Step, ...]:
    """The steps of a script.

    Raises:
        UsageError: a line is none; the message says which.
    """
    return tuple(
        _step(line, f"{path}:{number}")
        for number, line in enumerate(text.splitlines(), 1)
        if line.partition("#")[0].strip()
    )


def _step(line: str, place: str) -> Step:
    try:
        # Comments by the shell's rules, so that a # inside quotes is text.
        when, *words = shlex.split(line, comments=True)
    except ValueError as error:
        raise UsageError(f"{place}: {error}") from error
    text = ""
    # A text begins where the last command ended, so its time is "at once".
    if when == _WHEN:
        text, *words = words or [""]
        when = "+0ns"
        if not text:
            raise UsageError(f'{place}: a text is wanted after {_WHEN}, as in: {_WHEN} "login:" apply hello')
    found = _TIME.match(when)
    if found is None:
        raise UsageError(f"{place}: {when!r} is no time; write 300us, 1.5ms, +10us, or {_WHEN} and a text")
    try:
        check_words(words)
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from error
    sign, number, unit = found.groups()
    # Whole nanoseconds: the clock has no others.
    return Step(round(float(number) * _UNITS[unit]), bool(sign), tuple(words), text)


class Script:
    """Drives a tool through its steps while the machine runs.

    Args:
        machine: the machine.
        tool: what does them.
        steps: in order.
        done: is told of each step's exit code.
        console: what the guest has printed.
    """

    def __init__(
        self,
        machine: Machine,
        tool: Tool,
        steps: tuple[Step, ...],
        done: Callable[[Step, int], None],
        console: bytearray,
    ) -> None:
        self._machine = machine
        self._tool = tool
        self._left = list(steps)
        self._done = done
        self._verb: Verb | None = None
        self._since = 0
        self._console = console
        self._heard = 0

    @property
    def left(self) -> tuple[Step, ...]:
        """What has not been begun, and the one that is not over."""
        return tuple(self._left)

    def start(self) -> None:
        """From the next slice on."""
        self._machine.watch(self._look)

    def _look(self) -> int | None:
        # Several commands may be due at one time.
        while self._left:
            step, now = self._left[0], self._machine.clock.ns
            if self._verb is None:
                due = step.ns + (self._since if step.relative else 0)
                # The machine comes back then, so nothing is polled.
                if now < due:
                    return due
                # An empty text is found everywhere.
                if self._console.find(step.text.encode(), self._heard) < 0:
                    return None
                self._verb = self._tool.run(step.words)
            try:
                # A verb yields when it wants to be looked at again.
                return next(self._verb)
            except StopIteration as over:
                # Output of the command itself does not count for the next text.
                self._verb, self._since, self._heard = None, now, len(self._console)
                self._left.pop(0)
                self._done(step, over.value)
        self._machine.unwatch(self._look)
        return None
