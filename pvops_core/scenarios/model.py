"""What a scenario is, and what playing one comes to: whether history was told truly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import UsageError
from pvops_core.scenarios.acts import HISTORY, RULE
from pvops_core.scenarios.kernels.stage import KernelStage

if TYPE_CHECKING:
    from pvops_core.scenarios.acts import Act, Commit
    from pvops_core.scenarios.stage import Stage


@attrs.frozen
class Scenario:
    """A failure of the past that can be played again.

    Attributes:
        name: what the command calls it.
        summary: one line.
        commits: where it is in Linux's history, oldest first.
        play: plays it on the built-in guest, act by act.
        on_kernel: the same on a kernel of its age; None where no kernel has what it takes.
    """

    name: str
    summary: str
    commits: tuple[Commit, ...]
    play: Callable[[Stage], Iterable[Act]]
    on_kernel: Callable[[KernelStage], Iterable[Act]] | None = None


@attrs.frozen
class Performance:
    """A scenario that has been played.

    Attributes:
        name, summary, commits: the scenario's.
        seed: of the runs.
        acts: what was shown.
        guest: the kernel that it was played on; empty for the built-in guest.
    """

    name: str
    summary: str
    commits: tuple[Commit, ...]
    seed: int
    acts: tuple[Act, ...]
    guest: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def honest(self) -> bool:
        """Both sides were shown, of history or of a rule, and everything was as it must be."""
        shown = {act.role for act in self.acts}
        return (shown >= HISTORY or shown >= RULE) and all(act.held for act in self.acts)

    @property
    def of_a_rule(self) -> bool:
        """Whether it shows a rule, and not what happened once."""
        return any(act.role in RULE for act in self.acts)


def perform(scenario: Scenario, stage: Stage | KernelStage) -> Performance:
    """Play a scenario, on the built-in guest or on a kernel.

    Raises:
        UsageError: a backend that it needs is not installed, or the kernel is not of the scenario's age.
        PvopsError: the framework or a plugin failed.
    """
    guest: Mapping[str, str] = {}
    if not isinstance(stage, KernelStage):
        acts = scenario.play(stage)
    elif scenario.on_kernel is None:
        raise UsageError(f"{scenario.name} is played on the built-in guest alone; leave out --kernel")
    else:
        acts, guest = scenario.on_kernel(stage), stage.guest
    return Performance(scenario.name, scenario.summary, scenario.commits, stage.seed, tuple(acts), guest)
