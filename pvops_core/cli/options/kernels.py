"""What the verbs that boot real kernels share: the machine a kernel needs, and what a boot may take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.images import machine_of
from pvops_core.kinds import kind_of
from pvops_core.runs.limits import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from pvops_core.cli.options.timelimits import TimeLimits
    from pvops_core.kinds import MachineKind

DEFAULT_MEMORY: Final = 256
_ROOM: Final = 3 << 30
"""Bytes that a worker may take beside the guest's memory."""


def kernel_kind(path: Path) -> MachineKind:
    """The machine that a kernel needs.

    Raises:
        ImageError: the file cannot be read or is no kernel.
    """
    return kind_of(machine_of(path))


def kernel_limits(allowed: TimeLimits, megabytes: int) -> Limits:
    """What the worker of a boot may take.

    Args:
        allowed: its time.
        megabytes: the guest's memory.
    """
    return Limits(allowed.worker, _ROOM + (megabytes << 20))
