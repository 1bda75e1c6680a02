from __future__ import annotations

from collections.abc import Callable

import pytest

from pvops_core.runs.observation import Observation, Outcome
from pvops_core.runs.verdict import Judged, Verdict, exit_code_of, verdict_of, why

Make = Callable[..., Observation]


@pytest.mark.parametrize("word", ["SUCCESS", "SKIP", "ERROR", "FAILURE"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_a_guest_has_the_last_word(make: Make, word: str, ending: str) -> None:
    console = f"--- Test ---{ending or chr(10)}Test result: SUCCESS\nmore\nTest result: {word}{ending}"
    for outcome in (Outcome.POWEROFF, Outcome.REBOOT, Outcome.UNTIL):
        assert verdict_of(make(console=console, outcome=outcome)) is Verdict(word)


@pytest.mark.parametrize(
    "console", ["", "hello\n", "Test result: LOVELY\n", "Test result: SUCCESSFUL\n", "no Test result: SUCCESS\n"]
)
def test_without_a_word_it_crashed(make: Make, console: str) -> None:
    assert verdict_of(make(console=console)) is Verdict.CRASH


@pytest.mark.parametrize("outcome", [each for each in Outcome if not each.finished and each is not Outcome.UNTIL])
def test_a_word_is_worth_nothing_if_the_end_is_none(make: Make, outcome: Outcome) -> None:
    run = make(console="Fail: x\nTest result: SUCCESS\n", outcome=outcome, reason="it was so")
    assert verdict_of(run) is (Verdict.ERROR if outcome is Outcome.UNSUPPORTED else Verdict.CRASH)
    assert why(run) == (f"{outcome.value}: it was so", "x")


def test_reasons_are_the_guests(make: Make) -> None:
    assert why(make(console="Fail: x\nTest result: SUCCESS\n")) == ()
    assert why(make(console="Skip: no y\r\nTest result: SKIP\r\n")) == ("no y",)
    assert why(make(console="title\n\n  no y here\nTest result: SKIP\n")) == ("no y here",)
    assert why(make(console="Error: a\nFail: b\nFailed\nTest result: ERROR\n")) == ("a", "b")
    assert len(why(make(console="Fail: b\n" * 99 + "Test result: FAILURE\n"))) == 20
    assert why(make(console="PANIC: at 1\n", outcome="crash", reason="")) == ("crash", "PANIC: at 1")


@pytest.mark.parametrize(
    ("runs", "code"),
    [
        ([], 0),
        (["SUCCESS", "SKIP"], 0),
        (["SUCCESS", "ERROR"], 5),
        (["FAILURE", "SKIP"], 5),
        (["FAILURE", "", "SUCCESS"], 6),
        ([Outcome.UNSUPPORTED, "SUCCESS"], 2),
        ([Outcome.UNSUPPORTED, "FAILURE"], 5),
        ([Outcome.DIED, "", "FAILURE"], 4),
        ([Outcome.TIMEOUT], 6),
    ],
)
def test_the_worst_is_the_exit_code(make: Make, runs: list[str | Outcome], code: int) -> None:
    found = [make(outcome=run) if isinstance(run, Outcome) else make(console=f"Test result: {run}\n") for run in runs]
    assert exit_code_of(map(Judged, found)) == code


CRASHED, HUNG, ENDED = Outcome.CRASH, Outcome.TIMEOUT, Outcome.POWEROFF


@pytest.mark.parametrize(
    ("expected", "said", "outcome", "as_expected", "code"),
    [
        ("CRASH", "", CRASHED, True, 0),
        ("CRASH", "", ENDED, True, 0),
        ("CRASH", "", HUNG, False, 6),
        ("CRASH", "", Outcome.DIED, False, 4),
        ("CRASH", "SUCCESS", ENDED, False, 5),
        ("SKIP", "SUCCESS", ENDED, False, 5),
        ("SKIP", "SKIP", ENDED, True, 0),
        ("FAILURE", "FAILURE", ENDED, True, 0),
        ("FAILURE", "", CRASHED, False, 6),
        ("SUCCESS", "FAILURE", ENDED, False, 5),
        ("ERROR", "", Outcome.UNSUPPORTED, False, 2),
        (None, "", CRASHED, None, 6),
        (None, "SKIP", ENDED, None, 0),
    ],
)
def test_what_was_expected_is_no_failure(
    *, make: Make, expected: str | None, said: str, outcome: Outcome, as_expected: bool | None, code: int
) -> None:
    observation = make(console=f"Test result: {said}\n" if said else "", outcome=outcome, reason="")
    run = Judged(observation, Verdict(expected) if expected else None)
    assert (run.as_expected, run.exit_code) == (as_expected, code)
    assert (f"{expected} was expected" in run.why) is (as_expected is False and run.verdict.value != expected)
