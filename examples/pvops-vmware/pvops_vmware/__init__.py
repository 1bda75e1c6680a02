"""Linux under VMware: bare metal, but nobody waits for a port that has no device behind it.

Source: arch/x86/kernel/cpu/vmware.c (6.1), vmware_paravirt_ops_setup: ``pv_ops.cpu.io_delay = paravirt_nop``; kernels
of today (7.2) have no such op, but a flag that no call site depends on. The steal
clock that it may set is no op of the table (a static call), and so not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from pvops_core.backends import Backend
from pvops_core.kinds import MachineKind
from pvops_core.patching.fills import in_layout

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.ops import Layout


@attrs.frozen
class VmwareKernel:
    """How a real kernel fills its table when it finds VMware under it."""

    def slots(self, kernel: KernelImage, layout: Layout, cpus: int) -> Mapping[str, str | int | None]:
        """``io_delay`` does nothing; a kernel without VMware's code keeps what it was linked with."""
        del cpus
        wanted = {"cpu.io_delay": "_paravirt_nop"} if "vmware_platform" in kernel.symbols else {}
        return in_layout(layout, wanted)

    def features(self, kernel: KernelImage, cpus: int) -> frozenset[str]:
        """None that decides about code in place of a call."""
        del kernel, cpus
        return frozenset()


backend = Backend(
    name="vmware",
    api=2,
    description="a fully virtualised guest of VMware, which skips delays",
    base="native",
    kernel=VmwareKernel(),
    nops=frozenset({"io_delay"}),
    kinds=frozenset(MachineKind),
)
