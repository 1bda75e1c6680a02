"""The xen backend: what a Linux guest does to run as a Xen PV domain, and the hypervisor that it runs on."""

from __future__ import annotations

from pvops_core.backends import Backend
from pvops_core.kinds import MachineKind
from pvops_xen.kernel import XenKernel
from pvops_xen.ops import EMPTY, NOPS, XenOps
from pvops_xen.patchlets import XEN_PATCHLETS
from pvops_xen.platform import XenPlatform
from pvops_xen.proof import PROOF

backend = Backend(
    name="xen",
    api=2,
    description="Xen PV: hypercalls, pinned read-only page tables and event channels on a model of the hypervisor",
    base="native",
    ops=XenOps,
    platform=XenPlatform,
    kernel=XenKernel(),
    patchlets=XEN_PATCHLETS,
    nops=NOPS,
    empty=EMPTY,
    proof=PROOF,
    kinds=frozenset({MachineKind.PAE, MachineKind.X86_64}),
    capabilities=frozenset(
        {"mmu.pseudo_physical", "mmu.readonly_tables", "mmu.lazy", "cpu.lazy", "irq.shared_mask", "hypercalls"}
    ),
)
