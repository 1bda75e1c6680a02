"""How the backends of a chain fill a kernel's table, and what they force on its CPU: for every verb the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pvops_core.backends.backend import Backend
    from pvops_core.images import KernelImage
    from pvops_core.ops import Layout
    from pvops_core.patching.fills import KernelFill


@attrs.frozen
class Forced:
    """A backend's ``forces``, as a fill that leaves the table alone."""

    names: frozenset[str]

    def slots(self, kernel: KernelImage, layout: Layout, cpus: int) -> Mapping[str, str | int | None]:
        """None."""
        del kernel, layout, cpus
        return {}

    def features(self, kernel: KernelImage, cpus: int) -> frozenset[str]:
        """Those declared."""
        del kernel, cpus
        return self.names


def own_fills(backend: Backend) -> list[KernelFill]:
    """What one backend adds to its base's: its ``kernel``, then its ``forces``."""
    fills: list[KernelFill] = [] if backend.kernel is None else [backend.kernel]
    return [*fills, Forced(backend.forces)] if backend.forces else fills


def fills_of(links: Sequence[Backend]) -> list[KernelFill]:
    """The fills of a chain, the innermost base's first.

    Args:
        links: a backend, its base, its base's base.
    """
    return [fill for link in reversed(links) for fill in own_fills(link)]
