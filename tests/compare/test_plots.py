"""Bars: as long as their values."""

from __future__ import annotations

import pytest

from pvops_core.compare.plots import Bar, grouped_bars, stacked_bars


def test_a_bar_is_as_long_as_its_value() -> None:
    svg = grouped_bars("t", [Bar("r", 0, 1, "one"), Bar("r", 1, 2, "two"), Bar("s", 0, 0, "none")])
    assert 'aria-label="t"' in svg
    lengths = []
    for path in svg.split('<path d="')[1:4]:
        xs = [float(line.split()[1]) for line in path.split('"')[0].splitlines() if line[:1] in "ML"]
        lengths.append(max(xs) - min(xs))
    assert lengths[1] == pytest.approx(2 * lengths[0])
    assert lengths[2] == 0


def test_stacked_parts_add_up() -> None:
    svg = stacked_bars("t", {"a": [1, 0, 2], "b": []})
    assert ">3<" in svg
    assert "var(--part-2)" in svg
    assert "var(--part-1)" not in svg
    assert "var(--series-" not in svg, "those are backends' colours"


def test_a_sum_names_parts_too_narrow_for_their_numbers() -> None:
    svg = stacked_bars("t", {"wide": [100, 200], "narrow": [1, 299, 7], "one": [0, 3]})
    assert ">100<" in svg
    assert ">300<" in svg
    assert ">307 = 1 + 299 + 7<" in svg
    assert ">3<" in svg


@pytest.mark.parametrize(
    ("name", "parts"), [("a", [9_000_000] + [1000] * 7), ("a name as kernels have them " * 2, [300, 1, 2])]
)
def test_a_sum_of_many_leaves_its_bar_room(name: str, parts: list[int]) -> None:
    svg = stacked_bars("t", {name: parts})
    assert f">{sum(parts):,}<" in svg
    assert " = " not in svg.replace("xmlns", "")
