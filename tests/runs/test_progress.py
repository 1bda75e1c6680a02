from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from pvops_core.runs.observation import Observation
from pvops_core.runs.progress import ProgressListener

Make = Callable[..., Observation]


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_only(make: Make, *, terminal: bool) -> None:
    screen = io.StringIO()
    with ProgressListener(2, Console(file=screen, force_terminal=terminal, width=120)) as listener:
        for observation in (make("[red]"), make("xen")):
            listener.started(observation.cell)
            listener.console(observation.cell, "guest: noise")
            listener.finished(observation)
    text = screen.getvalue()
    assert ("2/2" in text) is terminal
    assert "noise" not in text
    if not terminal:
        assert text == ""
