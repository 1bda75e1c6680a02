"""What a scenario is, and what playing one comes to: acts, the evidence in each, and whether history was told truly."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pvops_core.scenarios.stage import Stage, StagedRun

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


@attrs.frozen
class Commit:
    """A commit of Linux.

    Attributes:
        id: first 12 digits of its hash.
        when: year and month, or the release.
        what: what it did.
    """

    id: str
    when: str
    what: str


@attrs.frozen
class Check:
    """Something that history says of an act, and whether the machine says so too."""

    claim: str
    held: bool


@attrs.frozen
class Listing:
    """A few lines of machine code."""

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


@attrs.frozen
class Scenario:
    """A failure of the past that can be played again.

    Attributes:
        name: what the command calls it.
        summary: one line.
        commits: where it is in Linux's history, oldest first.
        play: plays it, act by act.
    """

    name: str
    summary: str
    commits: tuple[Commit, ...]
    play: Callable[[Stage], Iterable[Act]]


@attrs.frozen
class Performance:
    """A scenario that has been played.

    Attributes:
        name, summary, commits: the scenario's.
        seed: of the runs.
        acts: what was shown.
    """

    name: str
    summary: str
    commits: tuple[Commit, ...]
    seed: int
    acts: tuple[Act, ...]

    @property
    def honest(self) -> bool:
        """Both sides were shown, of history or of a rule, and everything was as it must be."""
        shown = {act.role for act in self.acts}
        return (shown >= HISTORY or shown >= RULE) and all(act.held for act in self.acts)

    @property
    def of_a_rule(self) -> bool:
        """Whether it shows a rule, and not what happened once."""
        return any(act.role in RULE for act in self.acts)


def perform(scenario: Scenario, stage: Stage) -> Performance:
    """Play a scenario.

    Raises:
        UsageError: a backend that it needs is not installed.
        PvopsError: the framework or a plugin failed.
    """
    acts = tuple(scenario.play(stage))
    return Performance(scenario.name, scenario.summary, scenario.commits, stage.seed, acts)


def works(role: Role, title: str, run: StagedRun, story: Iterable[str] = (), checks: Iterable[Check] = ()) -> Act:
    """An act whose point is that the guest comes to its end."""
    end = Check("the guest comes to its end and powers off", run.done)
    facts: dict[str, Value] = {"digest": f"{run.digest:016x}", "exceptions": len(run.faults)}
    return Act(role, f"{title}: {run.title}", run.ending, (end, *checks), tuple(story), facts)


def unlike_history(title: str, run: StagedRun, claim: str) -> Act:
    """An old behaviour that did not fail, or not where history says: what was to be seen is not there."""
    return Act(Role.OLD, f"{title}: {run.title}", run.ending, (Check(claim, held=False),))
