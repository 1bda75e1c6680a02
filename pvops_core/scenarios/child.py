"""Plays a scenario in a process of its own: a library that dies there does not take the caller along."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.child.calls import call_apart
from pvops_core.child.limits import Limits
from pvops_core.child.supervised import ChildLostError, Loss
from pvops_core.errors import ImageError, MachineError, PvopsError, UsageError, unknown

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


@attrs.frozen
class KernelFiles:
    """A kernel to play on.

    Attributes:
        kernel: path of its image.
        initrd: path of its initial ramdisk; None for none.
        cmdline: what is said on its command line beside its console.
    """

    kernel: str
    initrd: str | None = None
    cmdline: str = ""


def play_apart(name: str, seed: int, options: Mapping[str, str], files: KernelFiles | None = None) -> Performance:
    """Play a scenario in a child process.

    Args:
        name: the scenario.
        seed: of its runs.
        options: settings of platforms, name to text; each run's backend is given those that it has.
        files: the kernel to play it on; the built-in guest unless given.

    Raises:
        UsageError: there is no such scenario, a backend that it needs is missing, no backend has such a setting, or
            the kernel cannot be read or is not of the scenario's age.
        MachineError: the framework or a plugin failed, or the process died.
    """
    try:
        played = call_apart(_play, name, seed, dict(options), files, limits=LIMITS)
    except ChildLostError as lost:
        died = f"died: {lost.reason}" if lost.loss is Loss.DIED else f"was ended: {lost.reason}"
        raise MachineError(f"the process that played {name} {died}") from lost
    if isinstance(played, Failure):
        raise UsageError(played.text) if played.usage else MachineError(played.text)
    return played


def _play(name: str, seed: int, options: Mapping[str, str], files: KernelFiles | None) -> Performance | Failure:
    from pvops_core.backends import load_backends  # noqa: PLC0415 - heavy, and only the child needs them
    from pvops_core.backends.choices import choices_for  # noqa: PLC0415
    from pvops_core.guests import read_kernel  # noqa: PLC0415
    from pvops_core.scenarios import SCENARIOS, Stage, perform  # noqa: PLC0415
    from pvops_core.scenarios.kernels.stage import KernelStage  # noqa: PLC0415

    if name not in SCENARIOS:
        return Failure(unknown("scenario", name, SCENARIOS).message, usage=True)
    try:
        backends = load_backends().backends
        choices_for(backends, options, backends)  # refuses those that none has
        if files is None:
            return perform(SCENARIOS[name], Stage(backends, seed, options))
        kernel = read_kernel(files.kernel, files.initrd, files.cmdline)
        return perform(SCENARIOS[name], KernelStage(backends, kernel, seed, options))
    except PvopsError as error:
        return Failure(str(error), usage=isinstance(error, UsageError | ImageError))
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        return Failure(f"{type(error).__name__}: {error}", usage=False)
