"""How a real kernel fills pv_ops on bare metal: it does not, the table is linked that way.

``native_pv_lock_init`` moves a static key only, and no other bare-metal boot code writes a slot before the kernel
patches itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.ops import Layout


class NativeKernel:
    """The table as linked; no CPU feature is forced."""

    def slots(self, kernel: KernelImage, layout: Layout, cpus: int) -> Mapping[str, str | int | None]:
        """Nothing, on any number of CPUs."""
        del kernel, layout, cpus
        return {}

    def features(self, kernel: KernelImage, cpus: int) -> frozenset[str]:
        """None: ``paravirt_set_cap`` finds the native lock functions in place."""
        del kernel, cpus
        return frozenset()
