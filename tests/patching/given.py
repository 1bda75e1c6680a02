"""A fill of a kernel's table that does what the test says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.images import KernelImage
    from pvops_core.ops import Layout
    from pvops_core.patching.fills import Target


class Given:
    """Fills these slots and forces these features, whatever the kernel.

    Args:
        slots: the kernel's paths of ops to what their slots hold.
        features: names of CPU features that it forces.
    """

    def __init__(self, slots: Mapping[str, Target], *features: str) -> None:
        self._slots, self._features = slots, frozenset(features)

    def slots(self, kernel: KernelImage, layout: Layout, cpus: int) -> Mapping[str, Target]:
        """Those given."""
        del kernel, layout, cpus
        return self._slots

    def features(self, kernel: KernelImage, cpus: int) -> frozenset[str]:
        """Those given."""
        del kernel, cpus
        return self._features
