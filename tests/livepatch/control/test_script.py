"""Scripts: what is read, and that each step waits for its time or its text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import UsageError
from pvops_core.livepatch.control.script import Script, Step, read_script
from pvops_core.livepatch.control.tool import Tool
from tests.livepatch.control.driving import files

if TYPE_CHECKING:
    from tests.livepatch.conftest import Make


def test_scripts_are_read() -> None:
    text = "# comment\n\n300us upload a 'b c' # why\n+1.5ms apply a --nodeps\n2s list\n"
    assert read_script(text, "s") == (
        Step(300_000, relative=False, words=("upload", "a", "b c")),
        Step(1_500_000, relative=True, words=("apply", "a", "--nodeps")),
        Step(2_000_000_000, relative=False, words=("list",)),
    )
    for wrong in ("apply a", "3 apply a", "3us", "3us frob", "3us apply 'a"):
        with pytest.raises(UsageError, match="s:1"):
            read_script(wrong, "s")


def test_steps_wait_for_their_time(patched: Make) -> None:
    made, times = patched(), []
    steps = (Step(5_000, relative=False, words=("list",)), Step(2_000, relative=True, words=("list",)))
    tool = Tool(made.livepatch, files(made).__getitem__, lambda _line: None)
    Script(made.machine, tool, steps, lambda _step, _code: times.append(made.machine.clock.ns), bytearray()).start()
    made.run(10_000)
    assert 5_000 <= times[0] <= 5_005
    assert 7_000 <= times[1] <= 7_010


def test_a_step_waits_for_a_text(patched: Make) -> None:
    made, said = patched(), []
    console = bytearray(b"login:")
    steps = read_script('1us list\nwhen "login:" list\nwhen "login:" get x\n', "s")
    tool = Tool(made.livepatch, files(made).__getitem__, lambda _line: None)
    Script(made.machine, tool, steps, lambda step, code: said.append((step.command, code)), console).start()
    made.run(5_000)
    assert said == [("list", 0)], "what was there before does not count"
    console += b" login"
    made.run(5_000)
    assert len(said) == 1
    console += b":"
    made.run(5_000)
    assert said == [("list", 0), ("list", 0)]
    console += b"login:"
    made.run(5_000)
    assert said[2:] == [("get x", 1)]


@pytest.mark.parametrize("wrong", ["when", 'when ""', "when x", 'when "x" frob', "when list"])
def test_lines_that_wait_for_nothing(wrong: str) -> None:
    with pytest.raises(UsageError, match="s:1"):
        read_script(wrong, "s")
