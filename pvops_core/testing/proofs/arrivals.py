"""States in which a booting kernel calls an op: counted in one boot, picked by a seed, and stopped at in another.

A hook that only looks stands in front of each op, so that patched and inlined sites come by it as well as calls
through the slot do. Where a vCPU stands at its entry, the arguments are where the op's convention has them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from pvops_core.machine import Stop, Vcpu
    from pvops_core.session import Session
    from pvops_core.switchboard.kernel.ophook import OpHook

BY: Final = "prove"
_ARRIVED: Final = "arrived"


@attrs.frozen
class Arrival:
    """A vCPU that is about to execute an op.

    Attributes:
        op: the op.
        number: which call of it this is, from 0 on.
        vcpu: who stands there.
        hook: the hook at whose entry it stands.
    """

    op: str
    number: int
    vcpu: Vcpu
    hook: OpHook


def picks(counts: Mapping[str, int], states: int, seed: int) -> dict[str, frozenset[int]]:
    """Which calls of each op to stop at: all where there are no more than wanted, else a seeded sample.

    Args:
        counts: how often each op is called.
        states: how many are wanted of each.
        seed: decides which.
    """
    found = {}
    for op, count in sorted(counts.items()):
        chance = random.Random(f"{seed} {op}")  # noqa: S311 - the same in every run
        found[op] = frozenset(chance.sample(range(count), min(states, count)))
    return found


class Arrivals:
    """Watches the ops of a session's kernel; to be made before it runs.

    Args:
        session: the session.
        ops: the ops' names.
        wanted: which calls of each to stop at; none are stopped at unless given.

    Attributes:
        counts: how often each op has been called.
        end: how the run ended, when it has.

    Raises:
        SwitchError, PatchError: an op cannot have a hook.
    """

    def __init__(
        self, session: Session, ops: Iterable[str], wanted: Mapping[str, Collection[int]] | None = None
    ) -> None:
        self._session, self._wanted = session, wanted or {}
        self.counts: Counter[str] = Counter()
        self._serve: Callable[[Vcpu], int | None] | None = None
        self.end: Stop | None = None
        self._at: tuple[str, int, Vcpu] | None = None
        self._hooks = {op: session.hooks.install(op, self._looker(op), BY, by=BY) for op in ops}

    def _looker(self, op: str) -> Callable[[Vcpu], int | None]:
        wanted = self._wanted.get(op, frozenset())

        def look(cpu: Vcpu) -> int | None:
            if self._at is not None:  # a side is at work: what it calls on its way is no arrival
                return self._serve(cpu) if self._serve is not None else None
            number = self.counts[op]
            self.counts[op] = number + 1
            if number in wanted:
                self._at = op, number, cpu
                self._session.machine.stop(_ARRIVED, op)
            return None

        return look

    @contextmanager
    def served_by(self, serve: Callable[[Vcpu], int | None]) -> Iterator[None]:
        """Meanwhile do this at a call in place of just looking: it gives the op's result, or None to leave it."""
        self._serve = serve
        try:
            yield
        finally:
            self._serve = None

    def next(self, max_ns: int | None = None, max_seconds: float | None = None) -> Arrival | None:
        """Run to the next call that is wanted; None where the run ends before, as ``end`` says."""
        self._at = None
        stop = self._session.run(max_ns=max_ns, max_seconds=max_seconds)
        if self._at is None:
            self.end = stop
            return None
        op, number, vcpu = self._at
        return Arrival(op, number, vcpu, self._hooks[op])
