"""What the verbs that boot real kernels share: the machine a kernel needs, and what a boot may take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.compare.limits import Limits
from pvops_core.hookspecs.guest import kind_of
from pvops_core.images import machine_of

if TYPE_CHECKING:
    from pathlib import Path

    from pvops_core.kinds import MachineKind

DEFAULT_MEMORY: Final = 256
_ROOM: Final = 3 << 30
"""Bytes that a worker may take beside the guest's memory."""
_GRACE: Final = 1.08
"""The worker keeps the limit itself, to say where the guest was; one that does not is ended this much later."""


def kernel_kind(path: Path) -> MachineKind:
    """The machine that a kernel needs.

    Raises:
        ImageError: the file cannot be read or is no kernel.
    """
    return kind_of(machine_of(path))


def kernel_limits(max_seconds: float, megabytes: int) -> Limits:
    """What the worker of a boot may take."""
    return Limits(max_seconds * _GRACE, _ROOM + (megabytes << 20))
