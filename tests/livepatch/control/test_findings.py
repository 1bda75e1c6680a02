"""What is told of live patching, and the exit code that follows from it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pvops_core.livepatch.control.findings import CommandDone, LivePatched


@given(codes=st.lists(st.integers(0, 2), max_size=6), left=st.integers(0, 2))
def test_the_first_failure_is_the_exit_code_and_what_was_not_done_is_one(codes: list[int], left: int) -> None:
    commands = tuple(CommandDone(ns=number, command="list", exit=code, lines=()) for number, code in enumerate(codes))
    found = LivePatched(commands=commands, not_done=("list",) * left)
    failed = [code for code in codes if code]
    assert found.exit_code == (failed[0] if failed else int(left > 0))


def test_nothing_asked_for_is_fine() -> None:
    assert LivePatched().exit_code == 0
