from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.study.statistics import far_out, spread

numbers = st.lists(st.integers(1, 10**9), min_size=1, max_size=20)


@given(numbers, st.integers(2, 9))
def test_a_multiple_has_its_factor_for_ratio(values: list[int], factor: int) -> None:
    found = spread([factor * value for value in values], values)
    assert found.ratio == pytest.approx(factor)
    if len(values) > 1:
        assert found.ratio_low is not None
        assert found.ratio_high is not None
        assert found.ratio_low <= found.ratio_high


@given(numbers)
def test_a_spread_holds_its_values(values: list[int]) -> None:
    found = spread(values)
    assert found.low == min(values) <= found.median <= max(values) == found.high
    assert (found.ratio, found.ratio_low) == (None, None)
    assert spread(values, values) == spread(values, values)


def test_an_interval_of_known_runs() -> None:
    """Medians of pairs drawn from four: the ratio lies between those of the extremes."""
    found = spread([11, 12, 30, 13], [10, 10, 10, 10])
    assert found.ratio == 1.25
    assert found.ratio_low is not None
    assert found.ratio_high is not None
    assert 1.1 <= found.ratio_low < 1.25 < found.ratio_high <= 3.0


@pytest.mark.parametrize(("values", "base"), [([1, 2], [0, 0]), ([1, 2], [1]), ([1], [])])
def test_no_ratio_to_nothing(values: list[float], base: list[float]) -> None:
    assert spread(values, base).ratio is None


@pytest.mark.parametrize(
    ("values", "far"),
    [
        ([5, 5, 5, 5, 6], [4]),
        ([5, 5, 5, 5, 5], []),
        ([10, 11, 9, 10, 12, 100], [5]),
        ([10, 11, 9, 10, 12, 13], []),
        ([1, 1, 9, 1], []),
    ],
)
def test_what_lies_far(values: list[float], far: list[int]) -> None:
    assert far_out(values) == far
