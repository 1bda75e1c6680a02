"""Switches on the built-in guest, by the storm of the tests; now and then a step of a poke fails."""

from __future__ import annotations

import random
from typing import Final

from pvops_core.errors import SwitchError
from pvops_core.patching.poke import PokeStep
from soak.tally import Tally
from tests.switchboard import storm

COUNT: Final = 250
FAULTS: Final = 0.1
"""The share of switches before which the same is tried and fails."""
PROCESSORS: Final = range(1, 9)


class _InjectedError(Exception):
    """The step of a poke that was to fail."""


class FaultyStorm(storm.Storm):
    """A storm in which pokes fail: of such a switch nothing may be left."""

    failed = 0

    def toggle(self, how: str, op: str) -> None:
        """Try in vain, then switch."""
        if how != storm.SET_UP and self.chance.random() < FAULTS:
            self._fail(op)
        super().toggle(how, op)

    def _fail(self, op: str) -> None:
        poker, step = self.session.poker, self.chance.choice(list(PokeStep))
        before, wanted, start = self.board.implementation(op), self._other(op), self.session.machine.clock.ns
        watching = poker.observer

        def fail(at: PokeStep) -> None:
            if at is step:
                raise _InjectedError(step.name)

        poker.observer = fail
        try:
            self.board.switch(op, wanted, by="storm")
        except (_InjectedError, SwitchError):
            type(self).failed += 1
            if self.board.implementation(op) is not before:
                self.tally.wrong.append(f"{self.cell} {op}: switched though {step.name} failed")
        else:  # an op without a site needs no poke
            self._made(op, wanted, storm.SET_UP, self.session.machine.clock.ns - start)
        finally:
            poker.observer = watching
        self.check(f"{op} (fault at {step.name})")


def play(seed: int) -> Tally:
    """A run of switches on one layout, backend and number of vCPUs."""
    chance = random.Random(f"switches {seed}")
    places = sorted({(cell.layout, cell.backend) for cell in storm.cells()})
    layout, backend = places[seed % len(places)]
    cell = storm.Cell(layout, backend, 1 if backend == "lguest" else chance.choice(PROCESSORS))
    found = storm.Tally()
    storm.storm(cell, COUNT, seed, found, FaultyStorm)
    wrong = [*found.wrong, *found.broken]
    notes = {"aimed": found.made.total() - found.made[storm.ANYWHERE], "faults": FaultyStorm.failed}
    notes |= {"late": len(found.late), "refused": len(found.refused)}
    tally = Tally(found.asked, wrong)
    tally.notes.update(notes)
    return tally
