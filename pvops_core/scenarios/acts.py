"""What is shown of a scenario: acts, the evidence in each, and what must hold for history to have been told truly."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import attrs

from pvops_core.records import JsonRecord

if TYPE_CHECKING:
    from pvops_core.scenarios.run import Run

Value = int | str | bool | None | tuple[int | str, ...]


class Role(enum.Enum):
    """What an act is there to show."""

    OLD = "old"
    """The old behaviour fails, for the reason that history gives."""
    ELSEWHERE = "elsewhere"
    """The old behaviour does no harm here."""
    FIXED = "fixed"
    """The behaviour since then works on the guest and backend where the old one failed."""
    REFUSED = "refused"
    """What would be wrong is refused, with the reason, and nothing is harmed."""
    ALLOWED = "allowed"
    """The same wish, made rightly, is granted."""


HISTORY, RULE = frozenset({Role.OLD, Role.FIXED}), frozenset({Role.REFUSED, Role.ALLOWED})
"""What a scenario must show: a failure of the past and what became of it, or a rule from both its sides."""


class Commit(JsonRecord, frozen=True):
    """A commit.

    Attributes:
        id: Abbreviated id.
        when: Month and year.
        what: What it did.
    """

    id: str
    when: str
    what: str


class Check(JsonRecord, frozen=True):
    """A check: something that history says of an act, and whether the machine says so too.

    Attributes:
        claim: What was to be so.
        held: Whether it was.
    """

    claim: str
    held: bool


class Listing(JsonRecord, frozen=True):
    """A listing: a few lines of machine code, or of a table.

    Attributes:
        title: Its title.
        lines: Its lines.
    """

    title: str
    lines: tuple[str, ...]


@attrs.frozen
class Act:
    """One thing shown.

    Attributes:
        role: what it is there to show.
        title: what was done.
        ending: how it ended.
        story: what happened, a sentence or two each.
        facts: the figures of the story by name.
        listings: code that it speaks of.
        checks: what must hold for history to have been told truly.
    """

    role: Role
    title: str
    ending: str
    checks: tuple[Check, ...]
    story: tuple[str, ...] = ()
    facts: Mapping[str, Value] = attrs.field(factory=dict)
    listings: tuple[Listing, ...] = ()

    @property
    def held(self) -> bool:
        """Every check held, and there was one."""
        return bool(self.checks) and all(check.held for check in self.checks)


def works(role: Role, title: str, run: Run, story: Iterable[str] = (), checks: Iterable[Check] = ()) -> Act:
    """An act whose point is that the guest comes to its end."""
    end = Check("the guest comes to its end", run.done)
    return Act(role, f"{title}: {run.title}", run.ending, (end, *checks), tuple(story), dict(run.facts))


def unlike_history(title: str, run: Run, claim: str) -> Act:
    """An old behaviour that did not fail, or not where history says: what was to be seen is not there."""
    return Act(Role.OLD, f"{title}: {run.title}", run.ending, (Check(claim, held=False),))
