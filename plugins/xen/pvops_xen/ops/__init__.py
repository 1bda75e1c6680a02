"""What the guest's kernel does instead of touching hardware: the ops of the xen backend, one module a kernel group."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final

from pvops_xen.ops.boot import BootOps
from pvops_xen.ops.cpu import CpuOps
from pvops_xen.ops.descriptors import DescriptorOps
from pvops_xen.ops.irq import IrqOps
from pvops_xen.ops.lock import PV_SPINLOCKS, LockOps
from pvops_xen.ops.time import TimeOps
from pvops_xen.ops.tlb import TlbOps

if TYPE_CHECKING:
    from pvops_core.backends import Environment

# Python state of the guest's kernel that belongs to a snapshot.
_KEPT: Final = (
    "protected", "pinned", "late", "user_roots", "cr3", "cr0", "gdt", "idt", "tls", "kickers", "waiters",
)  # fmt: skip


class XenOps(IrqOps, CpuOps, DescriptorOps, TlbOps, LockOps, TimeOps, BootOps):
    """Every op that the Xen code of 2.6.23, 2.6.24 and 6.1 replaces.

    Attributes:
        absent: the spinlocks on one vCPU (``xen_init_spinlocks``): there is nobody to wait for.
    """

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self.absent = PV_SPINLOCKS if len(env.machine.vcpus) == 1 else frozenset[str]()
        env.machine.keep(self)

    def save(self) -> object:
        """State for a snapshot."""
        return {name: copy.deepcopy(getattr(self, name)) for name in _KEPT}, [batch.save() for batch in self.calls]

    def load(self, saved: object) -> None:
        """Take over what ``save`` gave."""
        if not isinstance(saved, tuple):
            raise TypeError("not a snapshot of the xen ops")
        values, batches = saved
        for name in _KEPT:
            setattr(self, name, copy.deepcopy(values[name]))
        for batch, state in zip(self.calls, batches, strict=True):
            batch.load(state)


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
