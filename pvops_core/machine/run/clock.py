"""Virtual time: moved on by executed code and by what handlers charge, never by the host's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.machine.engines import BLOCK_NS, StateWord

if TYPE_CHECKING:
    from pvops_core.machine.engines import Words

_ALLOWED, _CLOCK, _BUDGET = int(StateWord.ALLOWED), int(StateWord.CLOCK), int(StateWord.BUDGET)


class Clock:
    """Nanoseconds since the machine was made.

    While a vCPU runs, its native counter of runs of straight code moves the clock; between slices it is folded in.
    """

    def __init__(self) -> None:
        self._folded = 0
        self._running: Words | None = None

    @property
    def ns(self) -> int:
        """Virtual time now, in nanoseconds."""
        words = self._running
        if words is None:
            return self._folded
        # What the native counter has counted down so far, without stopping the engine to ask.
        return words[_CLOCK] + (words[_ALLOWED] - words[_BUDGET]) * BLOCK_NS

    def advance(self, ns: int) -> None:
        """Charge time: what a handler did would have taken ``ns`` nanoseconds (0 or more)."""
        if ns < 0:
            raise ValueError(f"the clock cannot go back by {-ns} ns")
        words = self._running
        if words is None:
            self._folded += ns
        else:
            words[_CLOCK] += ns
            blocks = ns // BLOCK_NS  # a slice is so much time, whatever it is spent on
            # A slice ends by time spent, so that a handler that charges much does not keep the others waiting.
            words[_BUDGET] -= blocks
            words[_ALLOWED] -= blocks

    def follow(self, state: Words) -> None:
        """A vCPU starts a slice: its blocks count from now."""
        # How far the counter goes down from here is what has been run.
        state[_ALLOWED] = state[_BUDGET]
        state[_CLOCK] = self._folded
        self._running = state

    def fold(self) -> int:
        """The slice is over; gives the blocks it ran."""
        words = self._running
        if words is None:
            return 0
        blocks = words[_ALLOWED] - words[_BUDGET]
        self._folded = words[_CLOCK] + blocks * BLOCK_NS
        self._running = None
        return blocks

    def save(self) -> int:
        """State for a snapshot."""
        return self._folded

    def load(self, state: int) -> None:
        """Go back to a saved state."""
        self._folded = state
