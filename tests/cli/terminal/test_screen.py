"""What is shown at a terminal: the guest's bytes, and a status line only until there are some."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from pvops_core.backends.keyboard import Look, Stroke
from pvops_core.cli.terminal.screen import Screen
from pvops_core.kinds import MachineKind
from pvops_core.runs.cell import Cell
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.runs.wire import Progress, WorkerPhase

if TYPE_CHECKING:
    import pytest

CELL = Cell("native", "", MachineKind.X86_64)


class Terminal(io.TextIOWrapper):
    """What is written to a terminal."""

    def __init__(self) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding="utf-8", newline="\r\n")

    def isatty(self) -> bool:
        return True


def shown(text: Terminal) -> str:
    text.flush()
    return text.bytes.getvalue().decode()


def test_a_silent_guest_is_told_of_until_it_prints() -> None:
    text = Terminal()
    screen = Screen(text, 2, lambda: None)
    screen.started(CELL)
    screen.told(WorkerPhase.BUILDING)
    assert shown(text).endswith("\r\x1b[Kpvops: building the machine (Ctrl-A h helps)")
    screen.told(Progress(0, "", 1))
    assert "before start_kernel" in shown(text)
    screen.told(Progress(1_250_000_000, "patched", 1))
    screen.told(Stroke(Look(0), b"x"))
    status = "1.25 s of virtual time, after patched, 1 of 2 vCPUs"
    assert shown(text).endswith(f"\r\x1b[Kpvops: {status} (Ctrl-A h helps)")
    screen.console(CELL, "\n\x1b[Hfirst")
    assert shown(text).endswith("helps)\r\x1b[K\n\x1b[Hfirst"), "a bare line feed of the guest's stays one"
    screen.told(Progress(2_000_000_000, "init", 2))
    assert shown(text).endswith("first")
    screen.finished(Observation(CELL, Outcome.POWEROFF, console="first"))
    assert shown(text).endswith("first\r\n")


def test_lines_of_pvops_stand_alone() -> None:
    text = Terminal()
    screen = Screen(text, 1, lambda: None)
    screen.told(WorkerPhase.BUILDING)
    screen.say("a word")
    assert shown(text).endswith("\r\x1b[Ka word\r\n")
    screen.finished(Observation(CELL, Outcome.POWEROFF, console="done\n"))
    assert shown(text).endswith("a word\r\n")


def test_no_status_is_written_into_a_file() -> None:
    text = io.StringIO()
    screen = Screen(text, 1, lambda: None)
    screen.told(WorkerPhase.BUILDING)
    screen.console(CELL, "text")
    assert text.getvalue() == "text"


def test_a_terminal_that_is_gone_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[bool] = []
    text = Terminal()

    def fail() -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(text, "flush", fail)
    screen = Screen(text, 1, lambda: gone.append(True))
    screen.console(CELL, "text")
    screen.say("word")
    assert gone
