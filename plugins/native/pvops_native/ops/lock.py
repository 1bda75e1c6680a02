"""Queued spinlocks: kernel/locking/qspinlock.c and asm/qspinlock.h (6.1), without paravirt waiting.

The lock word as asm-generic/qspinlock_types.h has it: locked in byte 0, pending in byte 1, the tail (CPU + 1,
nesting level) from bit 16. A waiter gives its time slice away instead of burning it, and keeps its place in the
queue.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from pvops_core.hookspecs import hookimpl
from pvops_core.machine import Reschedule
from pvops_native.ops.base import NativeGroup

if TYPE_CHECKING:
    from pvops_core.backends import Environment
    from pvops_core.machine import Vcpu

LOCKED: Final = 1
PENDING: Final = 1 << 8
# _Q_TAIL_CPU_OFFSET: the nesting level, of which only 0 is used, takes two bits below.
TAIL_CPU_SHIFT: Final = 18


class LockOps(NativeGroup):
    """lock.* (the nops aside).

    Attributes:
        waiting: by address of a lock, the processors in its queue.
    """

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self.waiting: dict[int, deque[int]] = {}

    @hookimpl
    def queued_spin_lock_slowpath(self, cpu: Vcpu, lock: int) -> None:
        """native_queued_spin_lock_slowpath: first come, first served.

        ``lock`` is a struct qspinlock *. The first waiter holds the pending bit, the last one's
        number is the tail; taking the lock and giving the queue up are one store, as the kernel's cmpxchg.
        """
        # A kernel has its own nodes (qnodes), which the hook must not leave out of date.
        self.leave("the kernel's queue of waiters")
        word = cpu.u32(lock)
        queue = self.waiting.setdefault(lock, deque())
        # The op is called again after each time slice that it gave away.
        if cpu.index not in queue:
            queue.append(cpu.index)
        # The oldest waiter alone may take it: the queue is what makes the lock fair.
        if queue[0] == cpu.index and not word & 0xFF:
            queue.popleft()
            cpu.set_u32(lock, self._word(queue) | LOCKED)
            if not queue:
                del self.waiting[lock]
            return
        cpu.set_u32(lock, self._word(queue) | word & 0xFF)
        raise Reschedule

    def _word(self, queue: deque[int]) -> int:
        """Pending and tail for those who wait."""
        # Tail of 0 means no queue, so CPUs count from 1; the first waiter has the pending bit instead.
        tail = queue[-1] + 1 << TAIL_CPU_SHIFT if len(queue) > 1 else 0
        return tail | (PENDING if queue else 0)

    @hookimpl
    def queued_spin_unlock(self, cpu: Vcpu, lock: int) -> None:
        """__native_queued_spin_unlock: a release store of 0 to the locked byte."""
        # A byte: pending and tail are the waiters'.
        cpu.set_u8(lock, 0)

    @hookimpl
    def vcpu_is_preempted(self, cpu: Vcpu) -> int:  # noqa: ARG002  # a hook names the vCPU first, needed or not
        """__native_vcpu_is_preempted: bool, never."""
        return 0
