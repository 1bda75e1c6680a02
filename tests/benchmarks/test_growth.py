"""How costs grow is told by the last step, whatever came before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks import growth


@contextmanager
def priced(size: int) -> Iterator[growth.Act]:
    """What costs the square of its size, on the clock of these tests."""
    yield lambda: CLOCK.append(CLOCK[-1] + size * size)


CLOCK = [0.0]


def test_the_exponent_of_the_last_step() -> None:
    row = growth.GrowingCost("squares", (1, 10, 100), "things", priced, clock=lambda: CLOCK[-1])
    assert row.seconds() == [1, 100, 10_000]
    assert growth.exponent(row.sizes, row.seconds()) == pytest.approx(2)


def test_what_grows_too_fast_is_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = growth.GrowingCost("squares", (1, 10), "things", priced, clock=lambda: CLOCK[-1])
    monkeypatch.setattr(growth, "rows", lambda: iter([row]))
    assert growth.main(["square"]) == 1
    assert growth.main(["nothing of that name"]) == 0
    assert "| squares | 1, 10 | things | 1,000, 100,000 | 2.00 |" in capsys.readouterr().out


def test_every_row_is_prepared_and_done() -> None:
    """At its least size, those that start other processes left out."""
    for row in growth.rows():
        if row.clock is not growth.children:
            small = row.sizes[0] if row.unit != "events" else 100
            with row.prepared(small) as act:
                act()
