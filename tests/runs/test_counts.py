"""What was counted between two moments."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pvops_core.runs.counts import Counts, PlatformCounts
from pvops_core.runs.rounds import Amounts

NAMES = st.dictionaries(st.sampled_from("abc"), st.integers(1, 9))
AMOUNTS = st.builds(
    Amounts,
    st.builds(
        Counts,
        ops=NAMES,
        own=NAMES,
        platform=st.builds(PlatformCounts, NAMES, NAMES, st.integers(0, 9), st.integers(0, 9)),
        switches=st.integers(0, 9),
        machine=NAMES,
        guest=NAMES,
    ),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 9).map(float),
)


def added(one: Amounts, other: Amounts) -> Amounts:
    def sums(left: object, right: object) -> object:
        if isinstance(left, dict) and isinstance(right, dict):
            return {name: left.get(name, 0) + right.get(name, 0) for name in left | right}
        if isinstance(left, int | float) and isinstance(right, int | float):
            return left + right
        names = type(left).__struct_fields__  # type: ignore[attr-defined]
        return type(left)(*(sums(getattr(left, name), getattr(right, name)) for name in names))

    found = sums(one, other)
    assert isinstance(found, Amounts)
    return found


@given(AMOUNTS, AMOUNTS)
def test_what_came_is_what_is_there_less_what_was(before: Amounts, came: Amounts) -> None:
    assert added(before, came).since(before) == came
