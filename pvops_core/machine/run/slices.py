"""How long a vCPU may run, in words that its native callbacks count down, and what is left when it is interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pvops_core.machine.engine import StateWord

if TYPE_CHECKING:
    from pvops_core.machine.engine import Words

_BUDGET: Final = int(StateWord.BUDGET)
_PATIENCE: Final = int(StateWord.PATIENCE)
_WITHHELD: Final = int(StateWord.WITHHELD)
_STEPPING: Final = int(StateWord.STEPPING)
_EXPIRED: Final = int(StateWord.EXPIRED)


class PartialSlice(NamedTuple):
    """A slice that was interrupted from outside, by a stop or a deadline: the vCPU has it to its end when it goes on.

    So it makes no difference to the guest. What belongs between two slices waits for that end: watchers, interrupts.
    """

    vcpu: int
    ran: int
    budget: int
    patience: int
    stepping: int


def allow(state: Words, runs: int, patience: int = 0, *, stepping: int = 0) -> None:
    """Let so many runs of straight code begin in the vCPU's next slice."""
    state[_BUDGET], state[_PATIENCE], state[_EXPIRED] = runs, patience, 0
    state[_WITHHELD], state[_STEPPING] = 0, stepping


def one_block(state: Words) -> None:
    """Let the next slice be one block of the engine's, whether a run begins with it or not."""
    # Budget -1: overdrawn at the first block, even if no run begins with it.
    allow(state, -1, stepping=1)


def resume(state: Words, left: PartialSlice) -> None:
    """Let the vCPU go on with a slice."""
    allow(state, left.budget, left.patience, stepping=left.stepping)


def withhold(state: Words, most: int) -> int:
    """Let no more than so many begin for now; gives the patience that is withheld."""
    # What is withheld is still the slice's: the guest gets it when the deadline that is not its own is over.
    if state[_BUDGET] > most:
        state[_WITHHELD] = state[_BUDGET] - most
        state[_BUDGET] = most
    patience = state[_PATIENCE]
    # Patience is spent after the budget, and counts against the same deadline.
    state[_PATIENCE] = min(patience, max(0, most - max(state[_BUDGET], 0)))
    return patience - state[_PATIENCE]


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
    budget = state[_BUDGET] + max(state[_WITHHELD], 0)
    return PartialSlice(vcpu, ran, budget, state[_PATIENCE] + patience, state[_STEPPING])
