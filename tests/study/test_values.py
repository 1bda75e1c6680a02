from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.errors import UsageError
from pvops_core.study.values import MOST, meant, numbers


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (3, (3,)),
        ("0..3", (0, 1, 2, 3)),
        ((1, "3..4", 1), (1, 3, 4)),
        ("1,4, 6..7", (1, 4, 6, 7)),
        ("5", (5,)),
        ((), ()),
    ],
)
def test_numbers(value: int | str | tuple[int | str, ...], found: tuple[int, ...]) -> None:
    assert numbers(value) == found


@pytest.mark.parametrize("text", ["", "a", "3..1", "1..", "-1..2", "1..2..3", f"0..{MOST}", "0..99999999999999999999"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(UsageError):
        numbers(text)


def test_too_many_in_parts() -> None:
    with pytest.raises(UsageError, match="the most is"):
        numbers((f"0..{MOST - 1}", f"{MOST}..{MOST + 5}"))


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_a_rule_means_what_its_range_has(value: int, begin: int, length: int) -> None:
    text = f"{begin}..{begin + length}"
    assert meant(value, text) == (value in numbers(text))


def test_names_are_patterns() -> None:
    assert meant("vmlinuz-6.1", "vmlinuz-*")
    assert meant("xen", ("native", "xen"))
    assert not meant("xen", "native")
    assert not meant("1", 1)
    assert meant(2, (1, 2))
