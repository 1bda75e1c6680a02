"""What must be equal on every backend, and where it is not."""

from __future__ import annotations

import difflib
import itertools
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.records import JsonRecord
from pvops_core.runs.observation import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pvops_core.runs.observation import Observation

RESULT_PREFIX = "guest:"
"""Console lines that begin so are the guest's results."""
PLATFORM_PREFIX = "guest: platform:"
"""... but for these, in which the guest says what it runs on."""
ABSENT = "(absent)"
MOST_ALIGNED = 2000


class Difference(JsonRecord, frozen=True):
    """A result that is not the reference's.

    Attributes:
        field: `outcome`, `console`, or `results.NAME`.
        reference: The backend measured by.
        backend: The backend that differs.
        expected: What the reference has.
        found: What the backend has.
    """

    field: str
    reference: str
    backend: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reference} has {self.expected}, {self.backend} has {self.found}"


@attrs.frozen
class LinePair:
    """A row of two consoles laid side by side; ``None`` where one has no such line."""

    left: str | None
    right: str | None

    @property
    def equal(self) -> bool:
        """The line is the same on both sides."""
        return self.left == self.right


def result_lines(console: str) -> list[str]:
    """The console lines that are results: those that every backend must print alike."""
    return [
        line for line in console.splitlines() if line.startswith(RESULT_PREFIX) and not line.startswith(PLATFORM_PREFIX)
    ]


def align(left: Sequence[str], right: Sequence[str]) -> list[LinePair]:
    """Two lists of lines side by side, equal lines beside each other.

    Where more than ``MOST_ALIGNED`` lines lie between a common beginning and a common end, those are paired by
    their number alone: aligning takes time that grows with the square.
    """
    start = _common(left, right)
    end = _common(left[start:][::-1], right[start:][::-1])
    middle = left[start : len(left) - end], right[start : len(right) - end]
    rows = [LinePair(line, line) for line in left[:start]]
    rows += _by_content(*middle) if max(map(len, middle)) <= MOST_ALIGNED else _by_number(*middle)
    rows += [LinePair(line, line) for line in left[len(left) - end :]]
    return rows


def _common(left: Sequence[str], right: Sequence[str]) -> int:
    """Number of lines with which both begin."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


def _by_content(left: Sequence[str], right: Sequence[str]) -> Iterator[LinePair]:
    # autojunk takes lines that recur, as a console has them, for noise.
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    for _, left_start, left_end, right_start, right_end in matcher.get_opcodes():
        yield from _by_number(left[left_start:left_end], right[right_start:right_end])


def _by_number(left: Sequence[str], right: Sequence[str]) -> Iterator[LinePair]:
    return itertools.starmap(LinePair, itertools.zip_longest(left, right))


def differences(reference: Observation, other: Observation) -> tuple[Difference, ...]:
    """Every result of ``other`` that is not the reference's, the weightiest first."""
    names = reference.cell.backend, other.cell.backend
    return tuple(
        Difference(field, *names, expected, found) for field, expected, found in _unequal_results(reference, other)
    )


_END: Final = {Outcome.HALTED: Outcome.POWEROFF}
"""A guest that wants to be off halts where the platform has no way to switch it off: that is the platform's."""


def _unequal_results(reference: Observation, other: Observation) -> Iterator[tuple[str, str, str]]:
    """Field, the reference's value, the other's value."""
    if _END.get(reference.outcome, reference.outcome) is not _END.get(other.outcome, other.outcome):
        yield "outcome", _ending(reference), _ending(other)
    for word in sorted(reference.results.keys() | other.results.keys()):
        expected = reference.results.get(word, ABSENT)
        found = other.results.get(word, ABSENT)
        if expected != found:
            yield f"results.{word}", expected, found
    for pair in align(result_lines(reference.console), result_lines(other.console)):
        if not pair.equal:
            yield "console", _line(pair.left), _line(pair.right)


def _ending(observation: Observation) -> str:
    return f"{observation.outcome.value} ({observation.reason})" if observation.reason else observation.outcome.value


def _line(text: str | None) -> str:
    return ABSENT if text is None else repr(text)
