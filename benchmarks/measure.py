"""Timing, and what one benchmark gives."""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import perf_counter

import attrs

NANO = 1e9


@attrs.frozen
class Result:
    """One row of the table.

    Attributes:
        name: what was measured.
        value: the figure, in ``unit``.
        floor: what it is held against, in the same unit; None where the aim is absolute.
        aim: the ratio, or where there is no floor the figure, that we want at most.
        unit: of value and floor.
        of: what the floor is.
    """

    name: str
    value: float
    unit: str
    aim: float
    floor: float | None = None
    of: str = ""

    @property
    def ratio(self) -> float | None:
        """Value by floor."""
        return None if self.floor is None else self.value / self.floor

    @property
    def met(self) -> bool:
        """Whether the aim is reached."""
        return (self.value if self.ratio is None else self.ratio) <= self.aim


def best(act: Callable[[], object], *, repeats: int = 7, before: Callable[[], object] = lambda: None) -> float:
    """Seconds that ``act`` takes at its best of ``repeats``, ``before`` each of which something is not timed."""
    times = []
    for _ in range(repeats):
        before()
        # A collection of what was there before would be timed with it.
        gc.collect()
        gc.disable()
        start = perf_counter()
        act()
        times.append(perf_counter() - start)
        gc.enable()
    return min(times)
