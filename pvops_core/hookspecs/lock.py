"""Hooks of struct pv_lock_ops: queued spinlocks among vCPUs that may be off their processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.hookspecs.markers import hookspec

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu


@hookspec(firstresult=True)
def queued_spin_lock_slowpath(cpu: Vcpu, lock: int, val: int) -> None:
    """Take a spinlock that was found taken; called when the first compare-and-exchange of spin_lock fails.

    Args:
        lock: struct qspinlock *; guest-virtual address of the 4-byte lock word: locked byte, pending byte,
            queue tail.
        val: u32; the lock word as that exchange saw it.

    Source: kernel/locking/qspinlock.c.
    """


@hookspec(firstresult=True)
def queued_spin_unlock(cpu: Vcpu, lock: int) -> None:
    """Release a spinlock; called by every spin_unlock. Callee-save.

    Args:
        lock: struct qspinlock *; guest-virtual address of the lock, whose locked byte becomes 0.
    """


@hookspec(firstresult=True)
def lock_wait(cpu: Vcpu, ptr: int, val: int) -> None:
    """Sleep until kicked, if a byte still has a value; called by a vCPU that has spun in vain.

    May return without cause.

    Args:
        ptr: u8 *; guest-virtual address of the byte.
        val: u8; the value with which to sleep.

    Source: xen_qlock_wait, kvm_wait.
    """


@hookspec(firstresult=True)
def lock_kick(cpu: Vcpu, cpu_nr: int) -> None:
    """Wake a vCPU that sleeps in wait; called by the vCPU that releases the lock.

    Args:
        cpu_nr: int; number of the vCPU to wake.

    Source: xen_qlock_kick, kvm_kick_cpu.
    """


@hookspec(firstresult=True)
def vcpu_is_preempted(cpu: Vcpu, cpu_nr: int) -> int | None:
    """Whether a vCPU is off its processor now; called by those who spin for a lock that it holds. Callee-save.

    Args:
        cpu_nr: long; number of the vCPU asked about.

    Returns:
        bool: 1 if it is not running, 0 if it is or that is not known.

    Source: xen_vcpu_stolen, __kvm_vcpu_is_preempted.
    """
