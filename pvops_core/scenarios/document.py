"""The JSON of scenarios."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pvops_core.records import Count, JsonRecord, like
from pvops_core.scenarios.acts import Check, Commit, Listing, Role

if TYPE_CHECKING:
    from pvops_core.scenarios.model import Performance


class ListedScenario(JsonRecord, frozen=True):
    """A scenario.

    Attributes:
        name: Its name.
        summary: What it shows.
    """

    name: str
    summary: str


class ScenarioList(JsonRecord, frozen=True):
    """Without a name.

    Attributes:
        scenarios: The scenarios.
    """

    scenarios: tuple[ListedScenario, ...]


class PlayedOn(JsonRecord, frozen=True):
    """The kernel that a scenario was played on.

    Attributes:
        path: The file.
        release: What the kernel calls itself.
        sha256: Hash of the unpacked vmlinux.
    """

    path: str
    release: str
    sha256: str


class PlayedAct(JsonRecord, frozen=True):
    """An act: one run.

    Attributes:
        role: Of history: the old behaviour, the same where it does no harm, what mended it. Of a rule: what it forbids,
            what it allows.
        title: Its title.
        ending: How the run ended.
        held: Whether all checks held.
        checks: What had to be so.
        story: What happened, a paragraph each.
        facts: Figures by name; addresses are hexadecimal text.
        listings: Listings of code or tables.
    """

    role: Role
    title: str
    ending: str
    held: bool
    checks: tuple[Check, ...]
    story: tuple[str, ...]
    facts: Mapping[str, Any]
    listings: tuple[Listing, ...]


class ScenarioResult(JsonRecord, frozen=True):
    """With a name.

    Attributes:
        scenario: Its name.
        summary: What it shows.
        seed: Seed of the runs.
        kernel: The kernel that it was played on; null for the built-in guest.
        commits: The commits of Linux that it is about.
        acts: The acts, in order.
        honest: Whether everything went as history says.
    """

    scenario: str
    summary: str
    seed: Count
    kernel: PlayedOn | None
    commits: tuple[Commit, ...]
    acts: tuple[PlayedAct, ...]
    honest: bool


def scenario_result(performance: Performance) -> ScenarioResult:
    """What is told of a performance."""
    return ScenarioResult(
        scenario=performance.name,
        summary=performance.summary,
        seed=performance.seed,
        kernel=PlayedOn(**performance.guest) if performance.guest else None,
        commits=performance.commits,
        acts=tuple(like(act, PlayedAct) for act in performance.acts),
        honest=performance.honest,
    )
