"""Some random switches; ``python -m tests.switchboard.storm`` makes twenty thousand."""

from __future__ import annotations

import pytest

from .storm import Cell, Tally, cells, storm

SOME = 12


def one_of_each() -> list[Cell]:
    """Every backend on every layout, the numbers of vCPUs in turn."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells():
        found.setdefault((cell.layout, cell.backend), []).append(cell)
    return [there[number % len(there)] for number, there in enumerate(found.values())]


@pytest.mark.parametrize("cell", one_of_each(), ids=lambda cell: f"{cell.layout}-{cell.backend}-{cell.vcpus}")
def test_switches_at_random_moments_break_nothing(cell: Cell) -> None:
    tally = Tally()
    storm(cell, SOME, 3, tally)
    assert tally.asked >= SOME
    assert not tally.wrong
    assert not tally.broken
    assert tally.aimed >= 0.5
    assert tally.in_time >= 0.9, tally.told()  # of so few
