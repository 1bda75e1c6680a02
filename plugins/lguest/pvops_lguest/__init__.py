"""The lguest backend of pvops: a 32-bit guest in ring 1 under a tiny host with shadow page tables."""

from pvops_core.backends import Backend
from pvops_core.kinds import MachineKind
from pvops_lguest.kernel import LguestKernel
from pvops_lguest.ops import LguestOps
from pvops_lguest.patchlets import LGUEST_PATCHLETS
from pvops_lguest.platform import LguestPlatform

backend = Backend(
    name="lguest",
    api=2,
    description="32-bit guest in ring 1 under the lguest host: shadow page tables, a ring of queued hypercalls",
    base="native",
    ops=LguestOps,
    platform=LguestPlatform,
    kernel=LguestKernel(),
    patchlets=LGUEST_PATCHLETS,
    kinds=frozenset({MachineKind.I386}),
    capabilities=frozenset({"mmu.shadow", "mmu.batching", "cpu.ring1", "irq.flag_in_memory"}),
)
