"""What the guest's kernel does instead of touching hardware: the ops of the xen backend, one module a kernel group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pvops_xen.ops.boot import BootOps
from pvops_xen.ops.cpu import CpuOps
from pvops_xen.ops.descriptors import DescriptorOps
from pvops_xen.ops.irq import IrqOps
from pvops_xen.ops.lock import PV_SPINLOCKS, LockOps
from pvops_xen.ops.time import TimeOps
from pvops_xen.ops.tlb import TlbOps

if TYPE_CHECKING:
    from pvops_core.backends import Environment
    from pvops_xen.ops.multicalls import BatchState


class OpsState(NamedTuple):
    """What the guest's kernel remembers outside of its memory, by the names of the ops' attributes."""

    protected: tuple[int, ...]
    pinned: tuple[int, ...]
    late: bool
    user_roots: dict[int, int]
    cr3: dict[int, int]
    cr0: dict[int, int]
    gdt: dict[int, int]
    idt: dict[int, tuple[int, int]]
    tls: tuple[tuple[int, int, int], ...]
    kickers: dict[int, int]
    waiters: dict[int, tuple[int, ...]]
    batches: tuple[BatchState, ...]


class XenOps(IrqOps, CpuOps, DescriptorOps, TlbOps, LockOps, TimeOps, BootOps):
    """Every op that the Xen code of 2.6.23, 2.6.24 and 6.1 replaces.

    Attributes:
        absent: the spinlocks on one vCPU (``xen_init_spinlocks``): there is nobody to wait for.
    """

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self.absent = PV_SPINLOCKS if len(env.machine.vcpus) == 1 else frozenset[str]()
        env.machine.keep(self)

    def save(self) -> OpsState:
        """State for a snapshot."""
        return OpsState(
            tuple(sorted(self.protected)),
            tuple(sorted(self.pinned)),
            self.late,
            dict(self.user_roots),
            dict(self.cr3),
            dict(self.cr0),
            dict(self.gdt),
            dict(self.idt),
            tuple((*which, value) for which, value in self.tls.items()),
            dict(self.kickers),
            {lock: tuple(each) for lock, each in self.waiters.items()},
            tuple(batch.save() for batch in self.calls),
        )

    def load(self, saved: OpsState) -> None:
        """Take over what ``save`` gave."""
        self.protected, self.pinned, self.late = set(saved.protected), set(saved.pinned), saved.late
        self.user_roots, self.cr3, self.cr0 = dict(saved.user_roots), dict(saved.cr3), dict(saved.cr0)
        self.gdt, self.idt, self.kickers = dict(saved.gdt), dict(saved.idt), dict(saved.kickers)
        self.tls = {(vcpu, entry): value for vcpu, entry, value in saved.tls}
        self.waiters = {lock: list(each) for lock, each in saved.waiters.items()}
        for batch, state in zip(self.calls, saved.batches, strict=True):
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
