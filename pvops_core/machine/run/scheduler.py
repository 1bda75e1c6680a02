"""Which vCPU runs next and for how long: decided by a seeded generator, so that a run can be repeated."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class SchedulerState(NamedTuple):
    """The generator, as ``random.Random`` gives it, and who is left of this round."""

    generator: tuple[int, tuple[int, ...], float | None]
    round: tuple[int, ...]


class Scheduler:
    """Rounds over the runnable vCPUs in a random order, with slices of random length.

    Args:
        seed: the machine's seed.
        slice_blocks: mean length of a slice in runs of straight code; 1 or more.
    """

    def __init__(self, seed: int, slice_blocks: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._slice_blocks = slice_blocks
        self._round: list[int] = []

    def pick(self, vcpus: int, runs: Callable[[int], bool]) -> int:
        """The vCPU that runs next, of several that can; every one that can runs once in a round.

        Args:
            vcpus: how many there are.
            runs: whether one of them can run now.
        """
        while True:
            if not self._round:
                self._round = [index for index in range(vcpus) if runs(index)]
                self._random.shuffle(self._round)
            # One that sleeps misses its turn and keeps no claim: the next round has it again.
            index = self._round.pop()
            if runs(index):
                return index

    def length(self) -> int:
        """Runs of code that may begin in the next slice."""
        return self.around(self._slice_blocks)

    def around(self, mean: int) -> int:
        """Half to one and a half times a number, and at least 1: that schedules differ by their seed."""
        return max(1, mean // 2 + self._random.randrange(mean + 1))

    def save(self) -> SchedulerState:
        """State for a snapshot."""
        version, words, gauss = self._random.getstate()
        return SchedulerState((version, words, gauss), tuple(self._round))

    def load(self, state: SchedulerState) -> None:
        """Go back to a saved state."""
        generator, order = state
        self._random.setstate(generator)
        self._round = list(order)
