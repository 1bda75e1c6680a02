"""The verbs as a user sees them, and scripts of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import UsageError
from pvops_core.livepatch.control.script import Script, Step
from pvops_core.livepatch.control.tool import Tool
from tests.livepatch.control.driving import files

if TYPE_CHECKING:
    from tests.livepatch.conftest import Make, Patched


def play(made: Patched, *commands: str, until: int = 200_000_000) -> tuple[list[str], list[int]]:
    """Lines said and exit codes of commands, one after the other."""
    lines: list[str] = []
    codes: list[int] = []
    steps = tuple(Step(0, relative=True, words=tuple(command.split())) for command in commands)
    tool = Tool(made.livepatch, files(made).__getitem__, lines.append)
    script = Script(made.machine, tool, steps, lambda _step, code: codes.append(code), bytearray())
    script.start()
    for _ in range(until // 1_000_000):
        made.run(1_000_000)
        if not script.left:
            break
    return lines, codes


def test_a_session(patched: Make) -> None:
    lines, codes = play(
        patched(slice_blocks=20_000),
        "upload hello some/hello.livepatch",
        "apply hello",
        "apply hello",
        "list",
        "load bye.livepatch",
        "revert hello",
        "unload hello",
        "revert bye",
        "unload bye",
        "apply nobody",
        "list",
    )
    assert codes == [0, 0, 0, 0, 0, 2, 1, 0, 0, 1, 0]
    assert lines[:3] == [
        "Uploading some/hello.livepatch... completed",
        "Applying hello... completed",
        "No action needed.",
    ]
    assert lines[5] == "hello                                   | APPLIED    | LIVEPATCH_RULEZ=1;by=us"
    assert "EBUSY" in lines[8]
    assert "ENOENT" in lines[-4]


def test_load_leaves_nothing_when_it_fails(patched: Make) -> None:
    made = patched()
    lines, codes = play(made, "load bye.livepatch", "load bye.livepatch --nodeps", "upload x bad")
    assert codes == [1, 0, 1]
    assert "EINVAL" in lines[1]
    assert lines[2] == "Unloading bye... completed"
    assert [record.name for record in made.registry.records] == ["bye"]


def test_a_timeout_is_told_of(patched: Make) -> None:
    made = patched(vcpus=2, slice_blocks=100_000)
    made.rig.code("ebfe", 0x13000)
    made.machine.vcpus[1].rip = 0x13000
    made.livepatch.registry.upload("hello", files(made)["some/hello.livepatch"])
    lines, codes = play(made, "apply hello", "list")
    assert codes == [2, 0]
    assert lines[0].startswith("Applying hello... failed: -16 (")
    assert lines[-1].endswith("(-16, Device or resource busy)")
    assert 30_000_000 <= made.machine.clock.ns < 62_000_000


def test_bad_commands(patched: Make) -> None:
    made = patched()
    tool = Tool(made.livepatch, files(made).__getitem__, print)
    for words in (["apply"], ["apply", "a", "b"], ["frob"], [], ["list", "--wrong"], ["upload", "x"]):
        with pytest.raises(UsageError):
            tool.run(words)


def test_get_tells_state_and_result(patched: Make) -> None:
    lines, codes = play(patched(), "upload hello some/hello.livepatch", "get hello", "get nobody")
    assert codes == [0, 0, 1]
    assert lines[1] == "hello: CHECKED"
    assert "ENOENT" in lines[2]
