"""What the guest's kernel does instead of touching hardware: the ops of the xen backend, one module a kernel group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pvops_xen.ops.boot import BootOps
from pvops_xen.ops.cpu import XenCpuOps
from pvops_xen.ops.descriptors import XenDescriptorOps
from pvops_xen.ops.irq import XenIrqOps
from pvops_xen.ops.kept.remembered import Remembered, RememberedState
from pvops_xen.ops.lock import PV_SPINLOCKS, LocksState, XenLockOps
from pvops_xen.ops.mmu import XenEntryOps
from pvops_xen.ops.spaces import SpaceOps
from pvops_xen.ops.time import XenTimeOps
from pvops_xen.ops.tlb import XenTlbOps

if TYPE_CHECKING:
    from pvops_core.backends import Environment


class XenOpsState(NamedTuple):
    """What the ops remember, by their parts; of a Linux's most is in its own memory."""

    locks: LocksState
    kept: RememberedState | None


class XenOps(XenIrqOps, XenCpuOps, XenDescriptorOps, XenTlbOps, XenEntryOps, SpaceOps, XenLockOps, XenTimeOps, BootOps):
    """Every op that the Xen code of 2.6.23, 2.6.24 and 6.1 replaces.

    Attributes:
        absent: the spinlocks on one vCPU (``xen_init_spinlocks``): there is nobody to wait for.
    """

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        # ``xen_init_spinlocks`` leaves the plain locks where one vCPU never waits.
        self.absent = PV_SPINLOCKS if len(env.machine.vcpus) == 1 else frozenset[str]()
        env.machine.keep(self)

    def save(self) -> XenOpsState:
        """State for a snapshot."""
        return XenOpsState(self.locks.save(), self.kept.save() if isinstance(self.kept, Remembered) else None)

    def load(self, saved: XenOpsState) -> None:
        """Take over what ``save`` gave."""
        self.locks.load(saved.locks)
        if isinstance(self.kept, Remembered) and saved.kept is not None:
            self.kept.load(saved.kept)


NOPS: Final = frozenset(
    {
        "load_tr_desc",
        "pte_update",
        "pte_update_defer",
        "apic_write",
        "apic_write_atomic",
        "setup_boot_clock",
        "setup_secondary_clock",
        "startup_ipi_hook",
    }
)
EMPTY: Final = frozenset(
    {"set_pgd", "alloc_p4d", "release_p4d", "notify_page_enc_status_changed", "irq_enable_sysexit"}
)
