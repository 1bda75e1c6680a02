"""What is typed reaches a worker while it runs, and its end too."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from pvops_core.kinds import MachineKind
from pvops_core.runs import inputfeeder
from pvops_core.runs.cell import Cell
from pvops_core.runs.inputfeeder import InputFeeder
from pvops_core.runs.pool import execute
from pvops_core.runs.wire import Request

if TYPE_CHECKING:
    import pytest

    from pvops_core.runs.observation import Observation

ECHOING = """
import json, sys, threading
from pvops_core.child.serving import lines_of_parent
from pvops_core.runs.worker.parentpipe import listen
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.records import read
from pvops_core.runs import wire
from pvops_core.backends.keyboard import Keyboard
def tell(message):
    sys.stdout.buffer.write(wire.encode(message))
    sys.stdout.flush()
lines = lines_of_parent()
request = read(next(lines), wire.Request)
keyboard = Keyboard(request.typed)
keyboard.listen()
threading.Thread(target=listen, args=(lines, keyboard), daemon=True).start()
while keyboard.wait(0, lambda: False):
    stroke = keyboard.take(0)
    tell(stroke.typed.decode() + stroke.leaving)
    if stroke.leaving:
        break
tell(Observation(request.cell, Outcome.POWEROFF, console="end"))
"""


class Answering:
    """Types the next word when the last one has come back."""

    def __init__(self, descriptor: int, words: list[bytes]) -> None:
        self.descriptor = descriptor
        self.words = words
        self.heard: list[str] = []

    def started(self, cell: Cell) -> None:
        """Nothing yet."""

    def console(self, cell: Cell, text: str) -> None:
        del cell
        self.heard.append(text)
        if self.words:
            os.write(self.descriptor, self.words.pop(0))
        else:
            os.close(self.descriptor)

    def finished(self, observation: Observation) -> None:
        """Nothing more."""


class Leaving(Answering):
    """Asks the run to end when the first word has come back."""

    def __init__(self, feeder: InputFeeder, why: str) -> None:
        super().__init__(-1, [])
        self.feeder, self.why = feeder, why

    def console(self, cell: Cell, text: str) -> None:
        del cell
        self.heard.append(text)
        self.feeder.leave(self.why)
        self.feeder.leave("another reason")


def told(feeder: InputFeeder, listener: Answering, typed: bytes = b"one") -> Observation:
    request = Request(Cell("xen", "", MachineKind.X86_64), typed=typed, live=True)
    (observation,) = execute([request], listener=listener, command=[sys.executable, "-c", ECHOING], feeder=feeder)
    return observation


def test_a_run_is_asked_to_end_once() -> None:
    mine, theirs = os.pipe()
    feeder = InputFeeder(mine)
    listener = Leaving(feeder, "Ctrl-A x")
    assert told(feeder, listener).console == "end"
    assert listener.heard == ["one", "Ctrl-A x"]
    assert feeder.leaving == "Ctrl-A x"
    os.close(mine)
    os.close(theirs)


def test_what_was_asked_before_the_worker_was_there_is_not_lost() -> None:
    mine, theirs = os.pipe()
    feeder = InputFeeder(mine)
    feeder.leave("SIGTERM")
    listener = Leaving(feeder, "")
    told(feeder, listener, b"")
    assert listener.heard == ["SIGTERM"]
    os.close(mine)
    os.close(theirs)


def test_the_end_of_what_is_typed_may_be_the_runs() -> None:
    mine, theirs = os.pipe()
    os.close(theirs)
    listener = Answering(-1, [])
    listener.console = lambda _cell, text: listener.heard.append(text)  # type: ignore[method-assign]
    told(InputFeeder(mine, gone="the terminal was closed"), listener, b"")
    assert listener.heard == ["the terminal was closed"]
    os.close(mine)


def test_keys_of_ones_own_are_not_passed_on() -> None:
    mine, theirs = os.pipe()
    os.write(theirs, b"a-b-c")
    os.close(theirs)
    listener = Answering(-1, [])
    listener.console = lambda _cell, text: listener.heard.append(text)  # type: ignore[method-assign]
    told(InputFeeder(mine, keys=lambda data: data.split(b"-")), listener, b"")
    assert "".join(listener.heard) == "abc"
    os.close(mine)


def test_a_run_that_does_not_end_when_asked_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputfeeder, "_PATIENCE_S", 0.2)
    mine, theirs = os.pipe()
    feeder = InputFeeder(mine)
    feeder.leave("Ctrl-A x")
    hanging = "import sys, time; sys.stdin.readline(); time.sleep(600)"
    request = Request(Cell("xen", "", MachineKind.X86_64), live=True)
    command = [sys.executable, "-c", hanging]
    (observation,) = execute([request], listener=Answering(-1, []), command=command, feeder=feeder)
    assert observation.reason.startswith("it did not end when asked to (Ctrl-A x), while starting Python")
    os.close(mine)
    os.close(theirs)


def test_a_conversation() -> None:
    before = set(threading.enumerate())
    mine, theirs = os.pipe()
    answering = Answering(theirs, [b"two", b"three"])
    request = Request(Cell("xen", "", MachineKind.X86_64), typed=b"one", live=True)
    (observation,) = execute(
        [request], listener=answering, command=[sys.executable, "-c", ECHOING], feeder=InputFeeder(mine)
    )
    os.close(mine)
    assert answering.heard == ["one", "two", "three"]
    assert observation.console == "end"
    for thread in set(threading.enumerate()) - before:  # the one that waited for the child ends on its own time
        thread.join(timeout=30)
        assert not thread.is_alive(), thread
