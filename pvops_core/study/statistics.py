"""Numbers over several runs: median, spread, ratio with its interval, what lies far out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from pvops_core.records import JsonRecord

_DRAWS: Final = 2000
_SEED: Final = 0
"""The same numbers give the same interval."""
_CONFIDENCE: Final = (2.5, 97.5)
_FAR: Final = 3.5
# The upper quartile of the normal distribution, which makes the median distance an estimate of the deviation.
_NORMAL: Final = 0.6745
_FEW: Final = 5


class Spread(JsonRecord, frozen=True):
    """One cost over seeds and repeats.

    Attributes:
        median: The median.
        low: The least.
        high: The most.
        ratio: Median as a multiple of the reference backend's; null where that is 0 or was not counted.
        ratio_low: Lower end of the ratio's 95 % interval, bootstrapped over pairs of runs; null for fewer than two.
        ratio_high: Upper end.
    """

    median: float
    low: float
    high: float
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None


def spread(values: Sequence[float], reference: Sequence[float] = ()) -> Spread:
    """A cost's spread and its ratio to a reference.

    Args:
        values: of the runs, one at least.
        reference: of the reference's runs with the same seeds and repeats, in the same order; none for no ratio.
    """
    own = np.asarray(values, dtype=float)
    found = Spread(float(np.median(own)), float(own.min()), float(own.max()))
    base = np.asarray(reference, dtype=float)
    if not base.size or base.size != own.size or not np.median(base):
        return found
    ratio = found.median / float(np.median(base))
    if own.size < 2:
        return Spread(found.median, found.low, found.high, ratio)
    return Spread(found.median, found.low, found.high, ratio, *_interval(own, base))


def _interval(own: np.ndarray, base: np.ndarray) -> tuple[float, float]:
    """Percentile bootstrap of the ratio of medians over pairs (Efron & Tibshirani, 1993, 13.3)."""
    picks = np.random.Generator(np.random.PCG64(_SEED)).integers(own.size, size=(_DRAWS, own.size))
    below = np.median(base[picks], axis=1)
    # A draw whose reference is 0 has no ratio.
    ratios = np.median(own[picks], axis=1)[below > 0] / below[below > 0]
    low, high = np.percentile(ratios, _CONFIDENCE)
    return float(low), float(high)


def far_out(values: Sequence[float]) -> list[int]:
    """Numbers of the values that lie far from the others: a modified z-score of more than 3.5.

    Where more than half are the same, every other one is far. Source: Iglewicz and Hoaglin, 1993, 3.3.
    """
    if len(values) < _FEW:
        return []
    own = np.asarray(values, dtype=float)
    distances = np.abs(own - np.median(own))
    scale = float(np.median(distances))
    far = distances > 0 if not scale else _NORMAL * distances / scale > _FAR
    return [int(number) for number in np.flatnonzero(far)]
