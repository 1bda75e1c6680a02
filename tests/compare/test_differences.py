from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from pvops_core.compare.differences import Difference, align, differences, result_lines
from pvops_core.runs.observation import Observation, Outcome

Make = Callable[..., Observation]
lines = st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=12)


def test_costs_hashes_and_platform_lines_are_no_results(make: Make) -> None:
    other = make(
        "xen", instructions=5, text_sha256="00", console="guest: platform: xen\nguest: memory ok\nguest: digest 5eed\n"
    )
    assert differences(make(), other) == ()


def test_every_result_word_counts(make: Make) -> None:
    other = make("xen", results={"digest": "bad", "extra": "1"})
    assert differences(make(), other) == (
        Difference("results.digest", "native", "xen", "5eed", "bad"),
        Difference("results.extra", "native", "xen", "(absent)", "1"),
        Difference("results.status", "native", "xen", "0", "(absent)"),
    )


def test_console_results_are_compared_line_by_line(make: Make) -> None:
    other = make("xen", console="noise\nguest: memory bad\nguest: digest 5eed\nguest: more\n")
    found = differences(make(), other)
    assert [(d.expected, d.found) for d in found] == [
        ("'guest: memory ok'", "'guest: memory bad'"),
        ("(absent)", "'guest: more'"),
    ]
    assert "native has 'guest: memory ok', xen has 'guest: memory bad'" in str(found[0])


def test_the_ending_counts(make: Make) -> None:
    (difference,) = differences(make(), make("xen", outcome=Outcome.REBOOT, reason="triple fault"))
    assert (difference.field, difference.found) == ("outcome", "reboot (triple fault)")


def test_a_guest_that_halts_has_wished_to_be_off(make: Make) -> None:
    assert not differences(make(outcome=Outcome.HALTED), make("xen"))
    assert differences(make(outcome=Outcome.HALTED), make("xen", outcome=Outcome.REBOOT))


def test_result_lines() -> None:
    assert result_lines("x guest: a\nguest: b\r\nguest: platform: p\nguest:c") == ["guest: b", "guest:c"]


@settings(derandomize=True, max_examples=200)
@given(lines, lines)
def test_aligned_lines_are_both_consoles_and_equal_only_when_they_are(left: list[str], right: list[str]) -> None:
    rows = align(left, right)
    assert [row.left for row in rows if row.left is not None] == left
    assert [row.right for row in rows if row.right is not None] == right
    assert all(row.left is not None or row.right is not None for row in rows)
    assert all(row.equal for row in rows) == (left == right)


def test_long_consoles_are_paired_without_delay() -> None:
    left = ["same", *(f"left {n}" for n in range(100_000)), "end"]
    right = ["same", "right", *(f"left {n}" for n in range(100_000, 0, -1)), "end"]
    rows = align(left, right)
    assert len(rows) == len(right)
    assert (rows[0].equal, rows[1].equal, rows[-1].equal) == (True, False, True)
