"""What is typed reaches a worker while it runs, and its end too."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from pvops_core.kinds import MachineKind
from pvops_core.runs.cell import Cell
from pvops_core.runs.inputfeeder import InputFeeder
from pvops_core.runs.pool import execute
from pvops_core.runs.wire import Request

if TYPE_CHECKING:
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
