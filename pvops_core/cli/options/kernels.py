"""What the verbs that boot real kernels share: the machine that a kernel needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.images import machine_of
from pvops_core.kinds import kind_of

if TYPE_CHECKING:
    from pathlib import Path

    from pvops_core.kinds import MachineKind

DEFAULT_MEMORY: Final = 256


def kernel_kind(path: Path) -> MachineKind:
    """The machine that a kernel needs.

    Raises:
        ImageError: the file cannot be read or is no kernel.
    """
    return kind_of(machine_of(path))
