"""Rounds of attackers until time is over, each in a process of its own: what takes that with it is a finding too."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from pvops_core.child.calls import call_apart
from pvops_core.child.limits import Limits
from pvops_core.child.supervised import ChildLostError
from pvops_core.errors import printable
from soak import ledger, rooms
from soak.attackers import play
from soak.tally import Tally

LIMITS: Final = Limits(wall_s=1200, memory=3 << 30)
"""What a round may take; one that takes more has found something."""
_SHOWN: Final = 10


@attrs.define
class Attack:
    """An attacker's part of a campaign.

    Attributes:
        name: which one.
        seed: of its next round.
        rounds: how many there have been.
        spent_s: seconds that they took.
        tally: what they came to.
    """

    name: str
    seed: int
    rounds: int = 0
    spent_s: float = 0.0
    tally: Tally = attrs.field(factory=Tally)

    def round(self) -> None:
        """Make one and tell of it."""
        begin = time.monotonic()
        try:
            found = call_apart(play, self.name, self.seed, limits=LIMITS)
        except ChildLostError as lost:
            found = Tally(wrong=[f"the round's process was lost: {lost}"])
        took = time.monotonic() - begin
        self.spent_s += took
        self.rounds += 1
        self.tally.add(found)
        said = found.skipped or f"{found.count:,} {dict(found.notes) or ''}".rstrip()
        sys.stdout.write(f"{self.name} seed {self.seed}: {said}, {len(found.wrong)} wrong, {took:.0f} s\n")
        for each in found.wrong[:_SHOWN]:
            sys.stdout.write(f"  {printable(each)}\n")
        if found.wrong:
            sys.stdout.write(f"  again: python -m soak --only {self.name} --seed {self.seed} --rounds 1\n")
        sys.stdout.flush()
        self.seed += 1


def campaign(names: Sequence[str], seed: int, *, seconds: float = 0, most: int = 0) -> list[Attack]:
    """Rounds in turn, whoever has had least time next, until time or rounds are over; each attacker has one at least.

    Args:
        names: of attackers.
        seed: of everybody's first round; the next has the next.
        seconds: after which no round is begun; 0 for none but ``most``.
        most: rounds of each attacker; 0 for as many as there is time for.
    """
    attacks = [Attack(name, seed) for name in names]
    begin = time.monotonic()
    while going := [each for each in attacks if not each.rounds or not (each.tally.skipped or _over(each, most))]:
        if seconds and time.monotonic() - begin > seconds and all(each.rounds for each in attacks):
            break
        min(going, key=lambda each: (bool(each.rounds), each.spent_s)).round()
    return attacks


def _over(attack: Attack, most: int) -> bool:
    return bool(most) and attack.rounds >= most


def keys(names: Sequence[str]) -> dict[str, str]:
    """What the rooms of attackers mean now."""
    bars = ledger.bars()
    return {name: rooms.key(bars[name].rooms) for name in names}


def enter(attacks: Sequence[Attack], seed: int, before: Mapping[str, str]) -> None:
    """Add what was done to the ledger, unless the rooms meant something else when it began."""
    now = keys([each.name for each in attacks])
    for each in attacks:
        wrong = each.tally.wrong
        if before[each.name] != now[each.name]:
            sys.stdout.write(f"{each.name}: not entered, its rooms were changed meanwhile\n")
        elif each.tally.count or wrong:
            result = f"{len(wrong)} wrong, first: {wrong[0][:200]}" if wrong else ledger.SOUND
            ledger.add(each.name, each.tally.count, seed=seed, result=result)
