"""Places in text where nobody may go on while it changes.

A vCPU may stand at the first byte of what changes, and will execute the new code; and at the first byte behind it. In
between, an instruction boundary of the old code is none of the new, or one that new code does not come to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[np.uint64]
    """Addresses, or words that may be such."""

FEW: Final = 4
"""So many spans are looked through one by one; of more, each word's is looked up."""


class Spans:
    """Open intervals: an address is inside ``(first, last)`` when ``first < address < last``.

    Args:
        ranges: the intervals, shape ``(n, 2)``; no two overlap.
        retired: starts of code that goes for good, at each of which an interval begins: those are inside as well.
    """

    def __init__(self, ranges: NDArray[np.uint64], retired: Sequence[int] = ()) -> None:
        self._plain = ranges
        if retired:
            ranges = ranges.copy()
            # Code that goes must not be begun either, so its first byte is inside too.
            ranges[:, 0] -= np.isin(ranges[:, 0], np.array(retired, dtype=np.uint64)).astype(np.uint64)
        # An interval without an inside.
        ranges = ranges[ranges[:, 1] > ranges[:, 0] + np.uint64(1)]
        if len(ranges) > FEW:
            ranges = ranges[np.argsort(ranges[:, 0], kind="stable")]
        self.ranges = ranges
        self._pairs = ranges.tolist() if len(ranges) <= FEW else []

    def __len__(self) -> int:
        return len(self.ranges)

    def __contains__(self, address: int) -> bool:
        return bool(self.hits(np.array([address], dtype=np.uint64))[0])

    def hits(self, words: Words) -> NDArray[np.bool_]:
        """Which of some words are addresses inside."""
        if len(self.ranges) > FEW:
            # Spans do not overlap, so the last one that begins before the word is the only one that may hold it.
            before = np.searchsorted(self.ranges[:, 0], words, side="left").astype(np.intp) - 1
            hit: NDArray[np.bool_] = (before >= 0) & (words < self.ranges[before, 1])
            return hit
        hit = np.zeros(len(words), dtype=np.bool_)
        for first, last in self._pairs:
            hit |= (words > first) & (words < last)
        return hit

    def covers(self, other: Spans) -> bool:
        """Whether whoever is inside of the other is inside of one of these."""
        if self._pairs and other._pairs:
            return all(any(a <= first and last <= b for a, b in self._pairs) for first, last in other._pairs)
        first, last = self.ranges[:, :1], self.ranges[:, 1:]
        return bool(((first <= other.ranges[:, 0]) & (other.ranges[:, 1] <= last)).any(axis=0).all())

    def of_returns(self) -> Spans:
        """The same without starts of code that goes: nobody returns there, and other pointers lead there."""
        return Spans(self._plain)


def changing(addresses: Words, old: NDArray[np.uint8], new: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The intervals of writes in which bytes really change, shape ``(m, 2)``: row ``i`` of old and new is one write.

    Who goes on before the first byte that changes has executed, and will execute, what the new code has there as well;
    who goes on behind the last executes only what stays. So nothing but what lies between is concerned.
    """
    differs = old != new
    rows = np.flatnonzero(differs.any(axis=1))
    differs = differs[rows]
    # From the first byte that differs to behind the last.
    first = differs.argmax(axis=1).astype(np.uint64)
    last = np.uint64(differs.shape[1]) - differs[:, ::-1].argmax(axis=1).astype(np.uint64)
    return np.stack((addresses[rows] + first, addresses[rows] + last), axis=1)
