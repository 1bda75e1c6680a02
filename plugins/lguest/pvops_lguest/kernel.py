"""How a real kernel fills its table as an lguest guest.

``lguest_init`` (arch/x86/lguest/boot.c, until Linux 4.13; drivers/lguest/lguest.c in 2.6.23) sets each op that lguest
has to a function of its own, most of them named after the op. A kernel without it has no lguest guest code at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pvops_core.errors import ImageError, UsageError
from pvops_core.patching.fills import assigned, present

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.ops import Layout

INIT = "lguest_init"


class LguestKernel:
    """An lguest guest, which has one CPU."""

    def slots(self, kernel: KernelImage, layout: Layout, cpus: int) -> Mapping[str, str | int | None]:
        """The functions of lguest that the kernel has; ``sched_clock``'s is set later, by ``lguest_time_init``.

        Raises:
            ImageError: the kernel was built without LGUEST_GUEST.
            UsageError: it should have several CPUs.
        """
        if INIT not in kernel.symbols:
            raise ImageError(
                f"the kernel was built without LGUEST_GUEST: it has no symbol {INIT}", kernel.path, field="symbols"
            )
        if cpus > 1:
            raise UsageError(f"an lguest guest has one vCPU, not {cpus}")
        named = present(kernel, {slot.path: f"lguest_{slot.op.name}" for slot in layout.slots})
        # What its code says goes before: its functions for the interrupt flag are called save_fl and so on.
        return {**named, **assigned(kernel, layout, INIT)}

    def features(self, kernel: KernelImage, cpus: int) -> frozenset[str]:
        """None: lguest was gone before there were features for paravirt."""
        del kernel, cpus
        return frozenset()
