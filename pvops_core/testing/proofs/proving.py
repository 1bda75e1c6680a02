"""Proves a backend's hooks: boots a kernel, stops where it calls ops, and compares two copies that make the call."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import MachineError
from pvops_core.testing.proofs.arrivals import Arrivals, picks
from pvops_core.testing.proofs.bench import Bench
from pvops_core.testing.proofs.proof import OpProof, Proof

if TYPE_CHECKING:
    from pvops_core.backends.proof import ProofNotes
    from pvops_core.session import Session
    from pvops_core.switchboard.implementations import Implementation

Offer = Callable[["Session", str], "Implementation | None"]
"""Gives the hook that is to be proven for an op of a session's; None if there is none."""


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
        max_seconds: wall time after which a boot is given up.
        progress: is told of what goes on.
    """

    make: Callable[[], Session]
    offer: Offer
    notes: ProofNotes
    wanted: frozenset[str] | None = None
    states: int = 200
    seed: int = 0
    max_seconds: float | None = None
    progress: Callable[[str], None] = lambda _text: None

    def prove(self) -> Proof:
        """Boot twice: to count the calls of ops, and to stop at some."""
        with self.make() as session:
            proofs = self._proofs(session)
            arrivals = Arrivals(session, [op for op, each in proofs.items() if not each.why_not])
            arrivals.next(max_seconds=self.max_seconds)
            counts = dict(arrivals.counts)
        for op, proof in proofs.items():
            proof.calls = counts.get(op, 0)
            if not proof.why_not and not proof.calls:
                proof.why_not = "the boot does not call it"
        with self.make() as session:
            end = self._compare(session, proofs, picks(counts, self.states, self.seed))
        return Proof(tuple(proofs.values()), end)

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

    def _compare(self, session: Session, proofs: Mapping[str, OpProof], wanted: Mapping[str, frozenset[int]]) -> str:
        """Boot, and compare at every call that is wanted; how the boot ended."""
        bench = Bench(session, wanted, self.notes)
        gc.collect()
        gc.freeze()  # a copy need not look at what lasts
        try:
            while (arrival := bench.arrivals.next(max_seconds=self.max_seconds)) is not None:
                proof, offered = proofs[arrival.op], self.offer(session, arrival.op)
                assert offered is not None, "it was there in the boot before"
                self.progress(f"{arrival.op}, call {arrival.number}")
                proof.own[arrival.hook.originals[-1]] += 1
                try:
                    proof.add(bench.compare(arrival, offered))
                except MachineError as error:
                    proof.lost[str(error)] += 1
        finally:
            gc.unfreeze()
        assert bench.arrivals.end is not None
        return f"{bench.arrivals.end.reason} {bench.arrivals.end.detail}".rstrip()
