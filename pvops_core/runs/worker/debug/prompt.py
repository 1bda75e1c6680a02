"""``breakpoint()`` in a plugin's code: a debugger at the terminal of whoever started the run."""

from __future__ import annotations

import contextlib
import os
import pdb  # noqa: T100 - the tool itself
import sys
import termios
from typing import TYPE_CHECKING, Any, Final, TextIO

from pvops_core.runs.wire import TERMINAL, Debugging
from pvops_core.switchboard.speaking import speaker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from pvops_core.machine import Machine
    from pvops_core.runs.wire import Message
    from pvops_core.runs.worker.pluginoutput import PluginOutput

_HIDDEN: Final = ("pvops_core.*", "unicorn.*", "ctypes.*")
"""Modules that stepping does not stop in."""


def install(send: Callable[[Message], None], output: PluginOutput) -> None:
    """Let ``breakpoint()`` stop here. The variable PYTHONBREAKPOINT may say otherwise, as for every program."""
    if "PYTHONBREAKPOINT" in os.environ:
        return
    reading, _, writing = os.environ.get(TERMINAL, "").partition(",")
    debugger: list[_Debugger] = []

    def stop(*_arguments: object, **_names: object) -> None:
        frame = sys._getframe(1)  # noqa: SLF001 - the documented way to the stack
        if not writing:
            place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            told = (
                f"breakpoint() at {place} is passed by: there is no terminal to give; use `run`, or `boot` of one image"
            )
            output.say("stderr", speaker(), told)
            return
        if not debugger:
            debugger.append(_Debugger(int(reading), int(writing), send, output))
        debugger[0].set_trace(frame)

    sys.breakpointhook = stop


class _Debugger(pdb.Pdb):
    """Python's own, at descriptors of the parent's; no limit of time counts from its first prompt on."""

    def __init__(self, reading: int, writing: int, send: Callable[[Message], None], output: PluginOutput) -> None:
        self._terminal, self._send, self._output = reading, send, output
        # Copies, for a file object closes its descriptor when it goes.
        stdin, stdout = os.fdopen(os.dup(reading)), os.fdopen(os.dup(writing), "w", buffering=1)
        super().__init__(stdin=stdin, stdout=stdout, skip=_HIDDEN, nosigint=True)

    def interaction(self, frame: FrameType | None, traceback: Any) -> None:  # noqa: ANN401 - as pdb has it
        if self._output.machine is not None:
            self._output.machine.unhurried = True
        self._send(Debugging(going_on=True))
        try:
            with _cooked(self._terminal):
                super().interaction(frame, traceback)
        finally:
            self._send(Debugging(going_on=False))


@contextlib.contextmanager
def at_terminal(send: Callable[[Message], None], machine: Machine) -> Iterator[tuple[TextIO, TextIO] | None]:
    """While entered, the terminal of whoever started the run, and no limit of time counts; None where there is none."""
    reading, _, writing = os.environ.get(TERMINAL, "").partition(",")
    if not writing:
        yield None
        return
    machine.unhurried = True
    send(Debugging(going_on=True))
    try:
        with (
            _cooked(int(reading)),
            os.fdopen(os.dup(int(reading)), errors="backslashreplace") as stdin,
            os.fdopen(os.dup(int(writing)), "w", buffering=1, errors="backslashreplace") as stdout,
        ):
            yield stdin, stdout
    finally:
        send(Debugging(going_on=False))


@contextlib.contextmanager
def _cooked(terminal: int) -> Iterator[None]:
    """While entered, a terminal takes lines and shows what is typed, as it does not for a guest."""
    if not os.isatty(terminal):
        yield
        return
    before = termios.tcgetattr(terminal)
    now = termios.tcgetattr(terminal)
    # Input, output and local modes are the first, second and fourth of tcgetattr's list (termios(3)).
    now[0] |= termios.ICRNL
    now[1] |= termios.OPOST
    now[3] |= termios.ICANON | termios.ECHO | termios.ISIG
    termios.tcsetattr(terminal, termios.TCSADRAIN, now)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
