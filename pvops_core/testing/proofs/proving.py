"""Proves a backend's hooks: boots a kernel, stops where it calls ops, and has both sides make the call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, Self, TypedDict, Unpack

import attrs

from pvops_core.errors import PvopsError
from pvops_core.machine import Stop
from pvops_core.ops import signature
from pvops_core.testing.proofs.arrivals import Arrivals, picks
from pvops_core.testing.proofs.bench import SECONDS, ProofBench
from pvops_core.testing.proofs.madeup import made_up, takes_any
from pvops_core.testing.proofs.proof import OpProof, Proof
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from pvops_core.backends.proof import ProofNotes
    from pvops_core.session import Session
    from pvops_core.switchboard.implementation import Implementation
    from pvops_core.testing.proofs.arrivals import Arrival
    from pvops_core.testing.proofs.subject import Subject

Offer = Callable[["Session", str], "Implementation | None"]
"""Gives the hook that is to be proven for an op of a session's; None if there is none."""

_CUT: Final = frozenset({"timeout", "crash", "dead"})
"""Ends of a boot that has not come to its own."""
_FOR_COUNTING: Final = 0.5
"""Part of the time allowed after which calls are counted no more: those that have been are tried."""


class ProofOptions(TypedDict, total=False):
    """What :class:`Prover` may be told besides."""

    wanted: frozenset[str] | None
    left: Callable[[], float | None]


@attrs.frozen(kw_only=True)
class Prover:
    """Proves hooks against one kernel.

    Attributes:
        make: makes a session that has not run: the same each time.
        offer: the hooks to be proven.
        notes: what their backend says of them.
        wanted: hook names of the ops; all that have a hook unless given.
        states: how many states of each op to try.
        seed: decides which.
        left: gives the wall time that is left for all, in seconds; after it there is what has been found until then.
        progress: is told of what goes on.
    """

    make: Callable[[], Session]
    offer: Offer
    notes: ProofNotes
    wanted: frozenset[str] | None = None
    states: int = 200
    seed: int = 0
    left: Callable[[], float | None] = lambda: None
    progress: Callable[[str], None] = lambda _text: None

    @classmethod
    def of(cls, subject: Subject, *, states: int, **others: Unpack[ProofOptions]) -> Self:
        """Of a kernel on a backend; the seed of its runs decides the states too."""
        return cls(
            make=subject.make, offer=subject.offer, notes=subject.notes, seed=subject.seed, states=states, **others
        )

    def prove(self) -> Proof:
        """Boot twice: to count the calls of ops, and to stop at some."""
        with self.make() as session:
            proofs = self._proofs(session)
            arrivals = Arrivals(session, sorted(op for op, each in proofs.items() if not each.why_not))
            left = self._left()
            arrivals.next(max_seconds=None if left is None else _FOR_COUNTING * left)
            counts = dict(arrivals.counts)
        for op, proof in proofs.items():
            proof.calls = counts.get(op, 0)
            if not proof.why_not and not proof.calls:
                proof.why_not = "the boot does not call it"
        with self.make() as session:
            bench = ProofBench(session, picks(counts, self.states, self.seed), self.notes)
            end = self._compare(session, bench, proofs)
        return Proof(tuple(proofs.values()), f"{end.reason} {end.detail}".rstrip(), end.reason not in _CUT)

    def _proofs(self, session: Session) -> dict[str, OpProof]:
        """Of each op that is wanted nothing yet, or why it cannot be compared."""
        table = session.table
        assert table is not None, "who makes the session has looked"
        proofs = {}
        for slot in table.layout.slots:
            op = slot.op.name
            if slot.op.is_data or (self.wanted is not None and op not in self.wanted):
                continue
            offered = self.offer(session, op)
            proof = proofs[op] = OpProof(op, slot.path, offered.name if offered else "")
            if offered is None:
                proof.why_not = "no backend of the chain has a hook"
            elif op in self.notes.justified:
                proof.justified = self.notes.justified[op]
                proof.why_not = proof.justified.reason
        return proofs

    def _compare(self, session: Session, bench: ProofBench, proofs: Mapping[str, OpProof]) -> Stop:
        """Boot, and compare at every call that is wanted; how the boot ended."""
        while (left := self._left()) != 0 and (arrival := bench.arrivals.next(max_seconds=left)) is not None:
            proof, offered = proofs[arrival.op], self.offer(session, arrival.op)
            assert offered is not None, "it was there in the boot before"
            self.progress(f"{arrival.op}, call {arrival.number}")
            for other in self._others(arrival):
                if not (patience := self._patience()):
                    break
                try:
                    proof.add(bench.compare(arrival, offered, other, patience))
                except PvopsError as error:
                    if self._left() == 0:
                        break  # for lack of time it has not been tried
                    proof.lost[str(error)] += 1
                proof.own[arrival.hook.originals[-1]] += 1
        return bench.arrivals.end or Stop("timeout", "the wall time allowed is over")

    def _left(self) -> float | None:
        """Seconds that are left, 0 if none are; None for as many as it takes."""
        left = self.left()
        return None if left is None else max(left, 0.0)

    def _patience(self) -> float:
        """Seconds that a state may take."""
        left = self._left()
        return SECONDS if left is None else min(SECONDS, left)

    def _others(self, arrival: Arrival) -> Iterator[int | None]:
        """The argument that a call has, and a made-up one where any will do."""
        yield None
        slot, kind = arrival.hook.slot, arrival.vcpu.machine.kind
        if takes_any(slot):
            place = signature(slot, kind).places[0]
            given = arrival.vcpu.get(place.registers[0]) if place.registers else 0
            frames = arrival.vcpu.machine.memory.size // PAGE
            yield made_up(given, place.bits, frames, f"{self.seed} {arrival.op} {arrival.number}")
