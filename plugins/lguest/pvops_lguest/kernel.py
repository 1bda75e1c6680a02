"""How a real kernel fills its table as an lguest guest.

``lguest_init`` (arch/x86/lguest/boot.c, until Linux 4.13; drivers/lguest/lguest.c in 2.6.23) sets each op that lguest
has to a function of its own, most of them named after the op. A kernel without it has no lguest guest code at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import ImageError, UsageError
from pvops_core.patching.fills import assigned, present

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.machine.cpu.model.identity import CpuIdentity
    from pvops_core.ops import Layout

INIT = "lguest_init"
_LATER = "lg_irq_enable"
"""Of arch/x86/lguest/i386_head.S since 2.6.31."""
_SAID_FAMILY = 5


class LguestKernel:
    """An lguest guest, which has one CPU."""

    def slots(self, kernel: KernelImage, layout: Layout, cpus: int) -> Mapping[str, str | int | None]:
        """The functions of lguest that the kernel has; ``sched_clock``'s is set later, by ``lguest_time_init``.

        Raises:
            ImageError: the kernel was built without LGUEST_GUEST.
            UsageError: it should have several CPUs.
        """
        # The symbol, for the version tells nothing: LGUEST_GUEST could be configured out until 4.13 removed it.
        if INIT not in kernel.symbols:
            raise ImageError(
                f"the kernel was built without LGUEST_GUEST: it has no symbol {INIT}", kernel.path, field="symbols"
            )
        # lguest never got guests with SMP.
        if cpus > 1:
            raise UsageError(f"an lguest guest has one vCPU, not {cpus}")
        # By name: each function is called after its op.
        named = present(kernel, {slot.path: f"lguest_{slot.op.name}" for slot in layout.slots})
        # What its code says goes before: its functions for the interrupt flag are called save_fl and so on.
        return {**named, **assigned(kernel, layout, INIT)}

    def features(self, kernel: KernelImage, cpus: int) -> frozenset[str]:
        """None: lguest was gone before there were features for paravirt."""
        del kernel, cpus
        return frozenset()

    def processor(self, kernel: KernelImage, identity: CpuIdentity) -> CpuIdentity:
        """What ``lguest_cpuid`` makes of it: family 5, whose start reads no MSRs. Kernels of 2.6.27 did not yet."""
        # A family below 6 makes the kernel skip rdmsr of the microcode's version (early_init_intel()).
        return attrs.evolve(identity, family=_SAID_FAMILY) if _LATER in kernel.symbols else identity
