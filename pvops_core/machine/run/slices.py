"""How long a vCPU may run, in words that its native callbacks count down, and what is left when it is interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pvops_core.machine.engines import StateWord

if TYPE_CHECKING:
    from pvops_core.machine.engines import Words

_BUDGET: Final = int(StateWord.BUDGET)
_LATER: Final = int(StateWord.LATER)
_PATIENCE: Final = int(StateWord.PATIENCE)
_WITHHELD: Final = int(StateWord.WITHHELD)
_CURTAILED: Final = int(StateWord.CURTAILED)
_LOOKED_PAGE: Final = int(StateWord.LOOKED_PAGE)
_LEFT_BEFORE: Final = int(StateWord.LEFT_BEFORE)
_RESUMED, _RESUMED_BUDGET = int(StateWord.RESUMED), int(StateWord.RESUMED_BUDGET)
_FRONTIER: Final = int(StateWord.FRONTIER)
_STEPPING: Final = int(StateWord.STEPPING)
_ALLOWED: Final = int(StateWord.ALLOWED)
_EXPIRED: Final = int(StateWord.EXPIRED)


class PartialSlice(NamedTuple):
    """A slice that was interrupted from outside, by a stop or a deadline: the vCPU has it to its end when it goes on.

    So it makes no difference to the guest. What belongs between two slices waits for that end: watchers, interrupts.

    Attributes:
        vcpu: its number.
        ran: runs of straight code that have begun.
        budget: those that may still.
        patience: and those after that while interrupts are off.
        stepping: whether it is a slice of one block, as the word of that name.
        lookout: runs before the next lookout for a loop with ``pause``; below 0 in the midst of one.
        looked: whether such a lookout has been kept where it was interrupted, before an instruction.
    """

    vcpu: int
    ran: int
    budget: int
    patience: int
    stepping: int
    lookout: int
    looked: int = 0


def allow(state: Words, runs: int, lookout: int | None = None, patience: int = 0, *, stepping: int = 0) -> None:
    """Let so many runs of straight code begin in the vCPU's next slice.

    Args:
        state: the vCPU's words.
        runs: how many.
        lookout: how many before it is looked at whether the vCPU loops with ``pause``; unless given, it is not.
        patience: runs beyond, for as long as interrupts are off.
        stepping: 1 for a slice of one block.
    """
    before = runs if lookout is None else min(lookout, runs)
    state[_BUDGET], state[_LATER] = before, runs - before
    state[_PATIENCE], state[_EXPIRED] = patience, 0
    state[_WITHHELD], state[_CURTAILED], state[_STEPPING] = 0, 0, stepping
    state[_LEFT_BEFORE], state[_RESUMED] = 0, -1
    state[_LOOKED_PAGE] = -1  # the text may be another's by now, and a machine that was loaded has found nothing yet


def one_block(state: Words) -> None:
    """Let the next slice be one block of the engine's, whether a run begins with it or not."""
    # Budget -1: overdrawn at the first block, even if no run begins with it.
    allow(state, -1, stepping=1)


def resume(state: Words, left: PartialSlice) -> None:
    """Let the vCPU go on with a slice."""
    allow(state, left.budget, left.lookout, left.patience, stepping=left.stepping)
    if left.looked:
        state[_RESUMED], state[_RESUMED_BUDGET] = state[_FRONTIER], state[_BUDGET]


def withhold(state: Words, most: int) -> int:
    """Let no more than so many begin for now; gives the patience that is withheld."""
    # What is withheld is still the slice's: the guest gets it when the deadline that is not its own is over.
    patience, budget = state[_PATIENCE], state[_BUDGET]
    left = budget + state[_LATER]
    if left > most:
        state[_WITHHELD] = left - most
        state[_BUDGET] = left = min(budget, most)
        state[_LATER], state[_CURTAILED] = most - left, budget - left
        left = most
    # Patience is spent after the budget, and counts against the same deadline.
    state[_PATIENCE] = min(patience, max(0, most - max(left, 0)))
    return int(patience - state[_PATIENCE])


def shorten(state: Words, runs: int) -> None:
    """Let the present slice, or the one to come, end so many runs earlier; what is withheld of it goes first."""
    withheld = min(runs, max(state[_WITHHELD], 0))
    later = min(runs - withheld, state[_LATER])
    now = runs - withheld - later
    state[_WITHHELD] -= withheld
    state[_LATER] -= later
    state[_BUDGET] -= now
    state[_ALLOWED] -= now


def left(state: Words) -> int:
    """Runs that may still begin, those withheld among them."""
    return int(state[_BUDGET] + state[_LATER] + max(state[_WITHHELD], 0))


def end(state: Words) -> None:
    """Let the present slice end with the straight code that is being executed."""
    # A step is one instruction anyhow, and its budget is not the slice's.
    if not state[_STEPPING]:
        state[_ALLOWED] -= state[_BUDGET]
        state[_BUDGET] = state[_LATER] = state[_PATIENCE] = 0
        state[_WITHHELD] = -1


def only_withheld(state: Words, patience: int) -> bool:
    """Whether a slice has expired for what was withheld of it alone, of its patience too."""
    return bool(state[_WITHHELD] > 0 or (state[_WITHHELD] == 0 < patience and not state[_STEPPING]))


def left_over(vcpu: int, state: Words, ran: int, patience: int) -> PartialSlice:
    """What the vCPU has still of its slice.

    Args:
        vcpu: its index.
        state: its words.
        ran: runs that have begun in the slice.
        patience: what was withheld of its patience.
    """
    lookout = state[_BUDGET] + state[_CURTAILED]
    looked = state[_LEFT_BEFORE]
    return PartialSlice(vcpu, ran, left(state), state[_PATIENCE] + patience, state[_STEPPING], lookout, looked)
