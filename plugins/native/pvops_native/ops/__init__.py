"""Bare metal's ops, one module per group of the kernel's own functions, composed here."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from pvops_native.ops.apic import NativeApicOps
from pvops_native.ops.control import ControlOps
from pvops_native.ops.convert import ConvertOps
from pvops_native.ops.cpu import NativeCpuOps
from pvops_native.ops.descriptors import NativeDescriptorOps
from pvops_native.ops.entries import EntryOps
from pvops_native.ops.info import InfoOps
from pvops_native.ops.init import NativeInitOps
from pvops_native.ops.irq import NativeIrqOps
from pvops_native.ops.lock import LockOps
from pvops_native.ops.memory import MemoryOps
from pvops_native.ops.msr import MsrOps
from pvops_native.ops.patch import PatchOps
from pvops_native.ops.time import NativeTimeOps
from pvops_native.ops.tlb import TlbOps

if TYPE_CHECKING:
    from pvops_core.backends import Environment

NOPS: Final = frozenset(
    {
        # init, x86_init
        "arch_setup",
        # cpu
        "alloc_ldt",
        "free_ldt",
        "start_context_switch",
        "end_context_switch",
        "cpu_lazy_mode_enter",
        "cpu_lazy_mode_leave",
        # apic
        "startup_ipi_hook",
        # mmu
        "activate_mm",
        "dup_mmap",
        "enter_mmap",
        "exit_mmap",
        "notify_page_enc_status_changed",
        "pgd_free",
        "alloc_pt",
        "alloc_pd",
        "alloc_pd_clone",
        "release_pt",
        "release_pd",
        "alloc_pte",
        "alloc_pmd",
        "alloc_pud",
        "alloc_p4d",
        "release_pte",
        "release_pmd",
        "release_pud",
        "release_p4d",
        "pte_update",
        "pte_update_defer",
        "set_lazy_mode",
        "mmu_lazy_mode_enter",
        "mmu_lazy_mode_leave",
        "mmu_lazy_mode_flush",
        # lock
        "lock_wait",
        "lock_kick",
    }
)
"""Ops whose slot holds _paravirt_nop on bare metal."""

EMPTY: Final = frozenset({"post_allocator_init"})
"""Ops whose slot bare metal leaves empty."""


class OpsState(NamedTuple):
    """By address of a lock, the processors in its queue; the calibrated frequency; the ranges reserved."""

    waiting: dict[int, tuple[int, ...]]
    khz: int
    reserved: tuple[tuple[int, int], ...]


class NativeOps(
    InfoOps,
    NativeInitOps,
    PatchOps,
    NativeTimeOps,
    NativeCpuOps,
    MsrOps,
    NativeDescriptorOps,
    ControlOps,
    NativeIrqOps,
    NativeApicOps,
    TlbOps,
    EntryOps,
    ConvertOps,
    MemoryOps,
    LockOps,
):
    """Every op as the kernel's native_* functions do it; keeps what they remember over snapshots of the machine."""

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        env.machine.keep(self)

    def save(self) -> OpsState:
        """What the ops remember: who waits for which lock, the calibrated frequency, the ranges reserved."""
        waiting = {lock: tuple(queue) for lock, queue in self.waiting.items()}
        return OpsState(waiting, self.khz, tuple(self.reserved))

    def load(self, state: OpsState) -> None:
        """Puts a state taken by `save` back."""
        waiting, self.khz, reserved = state
        self.waiting = {lock: deque(queue) for lock, queue in waiting.items()}
        self.reserved = list(reserved)
