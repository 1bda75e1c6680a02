"""Values of axes: ranges and lists as a study writes them, and whether a cell's value is one that a rule means."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, TypeVar

from pvops_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvops_core.study.spec import Numbers, Value

T = TypeVar("T")
_RANGE: Final = re.compile(r"^\s*(\d+)\s*\.\.\s*(\d+)\s*$")
MOST: Final = 100_000
"""Values of one axis, and cells of a study."""


def several(value: T | tuple[T, ...]) -> tuple[T, ...]:
    """One value as several."""
    return value if isinstance(value, tuple) else (value,)


def numbers(value: Numbers) -> tuple[int, ...]:
    """All numbers that are meant, each once, in order.

    Raises:
        UsageError: a text is no range, or there are too many.
    """
    given: tuple[int | str, ...] = several(value)
    found = dict.fromkeys(number for each in given for number in _numbers(each))
    if len(found) > MOST:
        raise UsageError(f"{len(found):,} values; the most is {MOST:,}")
    return tuple(found)


def _numbers(value: int | str) -> Iterator[int]:
    if isinstance(value, int):
        yield value
        return
    for part in value.split(","):
        if part.strip().isdecimal():
            yield int(part)
            continue
        begin, end = _ends(part)
        # Before the range is made, which could take all memory.
        if end - begin >= MOST:
            raise UsageError(f"{part.strip()!r} is {end - begin + 1:,} values; the most is {MOST:,}")
        yield from range(begin, end + 1)


def _ends(text: str) -> tuple[int, int]:
    found = _RANGE.match(text)
    if found is None or int(found[2]) < int(found[1]):
        raise UsageError(f"{text!r} is no number, and no range such as 0..9")
    return int(found[1]), int(found[2])


def meant(value: int | str, wanted: Value) -> bool:
    """Whether a rule means a value: a number itself or in a range, a name by itself or a pattern."""
    several_wanted: tuple[int | str, ...] = several(wanted)
    return any(_meant(value, each) for each in several_wanted)


def _meant(value: int | str, wanted: int | str) -> bool:
    if isinstance(value, str):
        return isinstance(wanted, str) and fnmatchcase(value, wanted)
    if isinstance(wanted, int):
        return value == wanted
    begin, end = _ends(wanted)
    return begin <= value <= end
