"""One session in which a kernel stops where it calls ops, and both sides of such a call are tried and undone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.guest.own import OwnFunction
from pvops_core.ops import signature
from pvops_core.switchboard import dispatch
from pvops_core.testing.proofs.arrivals import Arrivals
from pvops_core.testing.proofs.comparing import differences
from pvops_core.testing.proofs.flushing import Flushing
from pvops_core.testing.proofs.naming import KernelPlaces
from pvops_core.testing.proofs.patience import patience
from pvops_core.testing.proofs.proof import Example
from pvops_core.testing.proofs.sides import Side, SideCaller

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pvops_core.backends.proof import ProofNotes
    from pvops_core.machine import Machine, Vcpu
    from pvops_core.session import Session
    from pvops_core.switchboard.implementation import Implementation
    from pvops_core.testing.proofs.arrivals import Arrival

SECONDS: Final = 20.0
"""Wall time that one state may take."""


class ProofBench:
    """Tries calls in one session.

    Args:
        session: the session; it has not run.
        wanted: which calls of each op to stop at.
        notes: what the backend says of its hooks.

    Attributes:
        arrivals: stops at them.
    """

    def __init__(self, session: Session, wanted: Mapping[str, Collection[int]], notes: ProofNotes) -> None:
        self._session, self._notes = session, notes
        self.arrivals = Arrivals(session, wanted, wanted)
        self._flushing, self._places = Flushing(session), KernelPlaces(session, notes)

    def compare(
        self, arrival: Arrival, offered: Implementation, other: int | None = None, seconds: float = SECONDS
    ) -> Example | str:
        """What differs at a call; or why the hook has left it to the kernel's own function.

        Args:
            arrival: the call.
            offered: the hook.
            other: its first argument, in place of what it has.
            seconds: wall time that it may take.

        Raises:
            PvopsError: it could not be tried.
        """
        session = self._session
        arguments = _arguments(session.machine, arrival)
        registers: dict[str, int] = {}
        if other is not None:
            first = signature(arrival.hook.slot, session.machine.kind).places[0]
            bits = session.machine.kind.bits
            # An argument of two words lies in two registers, the low word first.
            registers = {name: other >> bits * part & (1 << bits) - 1 for part, name in enumerate(first.registers)}
            arguments[first.name] = other
        meant = self._notes.result_bits.get(arrival.op, -1)
        caller = SideCaller(session, arrival, self._flushing, registers, meant)
        with patience(seconds):
            kernel = caller.call()
            hook = self._served(caller, arrival, offered)
        if hook.passed:
            return hook.passed
        self._places.moved()
        found = tuple(differences(kernel, hook, self._places, session.machine.kind.pointer_size))
        ns, site = session.machine.clock.ns, self._site(arrival)
        return Example(arrival.number, arguments, ns, site, found, other is not None)

    def _served(self, caller: SideCaller, arrival: Arrival, offered: Implementation) -> Side:
        """The call, served by the hook."""
        machine, function = self._session.machine, offered.function
        read = dispatch.reader(machine, signature(arrival.hook.slot, machine.kind), offered.arguments)
        assert function is not None, "an offer is a function"
        passed = []

        def serve(cpu: Vcpu) -> int | None:
            try:
                return int(function(cpu, *read(cpu)) or 0)
            except OwnFunction as own:
                passed.append(own.reason)
                return None

        with self.arrivals.served_by(serve):
            side = caller.call()
        return attrs.evolve(side, passed=passed[0]) if passed else side

    def _site(self, arrival: Arrival) -> str:
        """Where the call is made."""
        address = arrival.vcpu.word(arrival.vcpu.rsp)
        found = self._session.guest.image.symbol_at(address)
        return f"{found[0]}+{found[1]:#x}" if found else f"{address:#x}"


def _arguments(machine: Machine, arrival: Arrival) -> dict[str, int]:
    cpu = arrival.vcpu
    how = signature(arrival.hook.slot, machine.kind)
    names = [place.name for place in how.places]
    return dict(zip(names, dispatch.reader(machine, how, names)(cpu), strict=True))
