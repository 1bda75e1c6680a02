"""Plays a scenario in a process of its own: a library that dies there does not take the caller along."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.child.calls import call_apart
from pvops_core.child.limits import Limits
from pvops_core.child.supervised import ChildLostError, Loss
from pvops_core.errors import MachineError, PvopsError, UsageError, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.scenarios.model import Performance

LIMITS: Final = Limits(wall_s=900.0)
"""For a hook that hangs: the guests are bound by virtual time, and play for a minute at the most."""


@attrs.frozen
class Failure:
    """An error that ended a scenario, in a form that passes between processes."""

    text: str
    usage: bool


def play_apart(name: str, seed: int, options: Mapping[str, str]) -> Performance:
    """Play a scenario in a child process.

    Args:
        name: the scenario.
        seed: of its runs.
        options: settings of platforms, name to text; each run's backend is given those that it has.

    Raises:
        UsageError: there is no such scenario, a backend that it needs is missing, or no backend has such a setting.
        MachineError: the framework or a plugin failed, or the process died.
    """
    try:
        played = call_apart(_play, name, seed, dict(options), limits=LIMITS)
    except ChildLostError as lost:
        died = f"died: {lost.reason}" if lost.loss is Loss.DIED else f"was ended: {lost.reason}"
        raise MachineError(f"the process that played {name} {died}") from lost
    if isinstance(played, Failure):
        raise UsageError(played.text) if played.usage else MachineError(played.text)
    return played


def _play(name: str, seed: int, options: Mapping[str, str]) -> Performance | Failure:
    from pvops_core.backends import load_backends  # noqa: PLC0415 - heavy, and only the child needs them
    from pvops_core.backends.choices import choices_for  # noqa: PLC0415
    from pvops_core.scenarios import SCENARIOS, Stage, perform  # noqa: PLC0415

    if name not in SCENARIOS:
        return Failure(unknown("scenario", name, SCENARIOS).message, usage=True)
    try:
        backends = load_backends().backends
        choices_for(backends, options, backends)  # refuses those that none has
        return perform(SCENARIOS[name], Stage(backends, seed, options))
    except PvopsError as error:
        return Failure(str(error), usage=isinstance(error, UsageError))
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        return Failure(f"{type(error).__name__}: {error}", usage=False)
