"""A comparison: observations gathered into groups, each with its differences, and a verdict over all."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import attrs

from pvops_core.compare.differences import Difference, differences
from pvops_core.runs.observation import Outcome
from pvops_core.runs.plan import Skipped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pvops_core.errors import PluginError
    from pvops_core.runs.cell import Group
    from pvops_core.runs.observation import Observation

EXIT_EQUAL = 0
EXIT_NOTHING_RAN = 3
EXIT_ERROR = 4
EXIT_DIFFERENT = 5
EXIT_GUEST_FAILED = 6


@attrs.frozen
class Choice:
    """What a report of boots is narrowed to.

    Attributes:
        phases: names of phases; all if empty.
        ops: names of ops; the weightiest if empty.
    """

    phases: tuple[str, ...] = ()
    ops: tuple[str, ...] = ()

    def wants(self, op: str) -> bool:
        """Whether a report tells of an op."""
        return not self.ops or op in self.ops


@attrs.define(slots=False, eq=False)  # cached properties live in the instance's dictionary
class GroupResult:
    """The observations of one group, in the order of the backends.

    Attributes:
        group: what they have in common.
        observations: one for each backend.
    """

    group: Group
    observations: tuple[Observation, ...]

    @functools.cached_property
    def reference(self) -> Observation:
        """The observation that the others are measured by: the first whose guest came to its own end."""
        finished = (o for o in self.observations if o.outcome.finished)
        return next(finished, self.observations[0])

    @functools.cached_property
    def differences(self) -> tuple[Difference, ...]:
        """Every result that is not the reference's; a run that gave no result is a failure, not a difference."""
        return tuple(
            difference
            for other in self.observations
            if other is not self.reference and other.outcome.finished
            for difference in differences(self.reference, other)
        )

    @property
    def failures(self) -> tuple[Observation, ...]:
        """Runs whose guest did not come to its own end."""
        return tuple(o for o in self.observations if not o.outcome.finished)

    @property
    def equal(self) -> bool:
        """Every run finished and all gave the same results."""
        return not self.failures and not self.differences


@attrs.frozen
class Comparison:
    """Everything a report is made from.

    Attributes:
        groups: in the order planned.
        skipped: what was not run because it does not go together.
        plugin_errors: plugins that could not be loaded; the others went on.
        plugin_errors_count: whether a broken plugin makes the comparison fail: not when others were asked for by name.
        command: how to run it again.
        choice: what a report of boots is narrowed to.
    """

    groups: tuple[GroupResult, ...]
    skipped: tuple[Skipped, ...] = ()
    plugin_errors: tuple[PluginError, ...] = ()
    plugin_errors_count: bool = True
    command: str = ""
    choice: Choice = attrs.field(factory=Choice)

    @property
    def of_kernel(self) -> bool:
        """The guest is a real kernel, so groups are boots of it."""
        return any(group.group.of_kernel for group in self.groups)

    @property
    def observations(self) -> tuple[Observation, ...]:
        """All of them, group by group."""
        return tuple(o for group in self.groups for o in group.observations)

    @property
    def exit_code(self) -> int:
        """The worst of all: our own error, then a guest's failure, then a difference."""
        if not self.groups and not self.plugin_errors:
            return EXIT_NOTHING_RAN
        codes = {o.outcome.exit_code for o in self.observations}
        if EXIT_ERROR in codes or (self.plugin_errors and self.plugin_errors_count):
            return EXIT_ERROR
        if EXIT_GUEST_FAILED in codes:
            return EXIT_GUEST_FAILED
        if not self.groups:
            return EXIT_NOTHING_RAN
        return EXIT_EQUAL if all(group.equal for group in self.groups) else EXIT_DIFFERENT

    @property
    def equal(self) -> bool:
        """Something ran, all of it finished, and results are equal within each group."""
        return bool(self.groups) and all(group.equal for group in self.groups)

    @property
    def verdict(self) -> str:
        """One sentence for a person."""
        if not self.groups:
            return "Nothing ran."
        failed = sum(len(group.failures) for group in self.groups)
        different = sum(bool(group.differences) for group in self.groups)
        if not failed and not different:
            return self._praise()
        parts: list[str] = []
        if different:
            parts.append(f"results differ in {different} of {_counted(len(self.groups), 'group')}")
        if failed:
            parts.append(f"{failed} of {_counted(len(self.observations), 'run')} did not finish")
        sentence = "; ".join(parts)
        return f"{sentence[0].upper()}{sentence[1:]}."

    def _praise(self) -> str:
        if self.of_kernel:
            ends = ", ".join(dict.fromkeys(o.outcome.value for o in self.observations))
            return f"{_counted(len(self.observations), 'boot')} came to an end: {ends}."
        runs = _counted(len(self.observations), "run")
        compared = [group for group in self.groups if len(group.observations) > 1]
        if not compared:
            return f"Nothing to compare: {runs}, each alone in its group."
        alone = len(self.groups) - len(compared)
        rest = f"; {_counted(alone, 'group')} had one backend alone" if alone else ""
        return f"Results are equal in {_of_all(len(compared))}, over {runs}{rest}."


def unsupported(observations: Iterable[Observation]) -> tuple[Skipped, ...]:
    """What did not run since the backend turned out not to be able to."""
    return tuple(
        Skipped(o.cell.backend, o.cell.layout, o.reason) for o in observations if o.outcome is Outcome.UNSUPPORTED
    )


def grouped(observations: Iterable[Observation]) -> tuple[GroupResult, ...]:
    """What ran, gathered by what it has in common, in the order in which each group first comes."""
    groups: dict[Group, list[Observation]] = {}
    for observation in observations:
        if observation.outcome is Outcome.UNSUPPORTED:
            continue
        groups.setdefault(observation.cell.group, []).append(observation)
    return tuple(GroupResult(group, tuple(members)) for group, members in groups.items())


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _of_all(number: int) -> str:
    return "the one group" if number == 1 else f"all {number} groups"
