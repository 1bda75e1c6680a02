"""pv_lock_ops: spinlocks whose waiters sleep in Xen (arch/x86/xen/spinlock.c; kernel/locking/qspinlock_paravirt.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pvops_core.hookspecs import hookimpl
from pvops_core.machine import Reschedule
from pvops_xen.hypervisor.abi import EvtchnOp, Hypercall, SchedOp
from pvops_xen.ops.base import XenGroup
from pvops_xen.public import EVENT_CHANNEL, SCHED

if TYPE_CHECKING:
    from pvops_core.backends import Environment
    from pvops_core.machine import Vcpu
    from pvops_xen.ops.kept.linux import Linux

PV_SPINLOCKS: Final = frozenset(
    {"lock_wait", "lock_kick", "queued_spin_lock_slowpath", "queued_spin_unlock", "vcpu_is_preempted"}
)
"""The ops that ``xen_init_spinlocks`` sets, all or none of them."""
_BIND_IPI: Final = EVENT_CHANNEL["evtchn_bind_ipi"]
_IPI: Final = _BIND_IPI.whole("vcpu", "port")
_SEND: Final = EVENT_CHANNEL["evtchn_send"].whole("port")
_POLL: Final = SCHED["sched_poll"].whole("ports", "nr_ports", "timeout")
_PORTS: Final = 32
"""Bytes on the stack before the port that is polled."""
_QUEUE: Final = "the kernel's queue of waiters"
_NO_IRQ: Final = 0xFFFF_FFFF
_RUNNABLE: Final = 1
_LOCKED: Final = 1
_SLOW: Final = 3  # _Q_SLOW_VAL: somebody sleeps, so the owner must kick


class LocksState(NamedTuple):
    """Locks in a snapshot."""

    kickers: dict[int, int]
    waiters: dict[int, tuple[int, ...]]


class Locks:
    """Who waits for what.

    Attributes:
        kickers: vCPU to the event channel that wakes it when it waits for a lock.
        waiters: lock to the vCPUs that sleep for it, in order.
    """

    def __init__(self) -> None:
        self.kickers: dict[int, int] = {}
        self.waiters: dict[int, list[int]] = {}

    def save(self) -> LocksState:
        """State for a snapshot."""
        return LocksState(dict(self.kickers), {lock: tuple(each) for lock, each in self.waiters.items()})

    def load(self, saved: LocksState) -> None:
        """Take over what ``save`` gave."""
        self.kickers = dict(saved.kickers)
        self.waiters = {lock: list(each) for lock, each in saved.waiters.items()}


class XenLockOps(XenGroup):
    """A waiter polls an event channel of its own; the owner sends an event there.

    The channel is masked, so that it never makes an upcall. None of these is in force on one vCPU.
    """

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self.locks = Locks()

    def _kicker(self, cpu: Vcpu, number: int) -> int:
        """Event channel of a vCPU's kicks; bound when it is first needed (``xen_init_lock_cpu``)."""
        port = self.locks.kickers.get(number)
        if port is None:
            address = self.argument(cpu, _IPI.at(self.bits).form.pack(number, 0))
            if self.platform.hypercall(cpu, Hypercall.EVENT_CHANNEL_OP, EvtchnOp.BIND_IPI, address):
                self.bug("no event channel for spinlocks")
            port = self.locks.kickers[number] = cpu.u32(address + _BIND_IPI.offset("port", self.bits))
            # Masked, since it is polled and never taken as an upcall.
            self._bit(self.platform.hv.abi.evtchn_mask, port, value=True)
        return port

    def _bit(self, bitmap: int, port: int, *, value: bool) -> None:
        """Set or clear a port's bit in a bitmap of shared_info."""
        memory = self.env.machine.memory
        address = self.platform.hv.domain.shared_info + bitmap + port // 8
        old = memory.u8(address)
        memory.set_u8(address, old | 1 << port % 8 if value else old & ~(1 << port % 8))

    @hookimpl
    def lock_wait(self, cpu: Vcpu, ptr: int, val: int) -> None:
        """``xen_qlock_wait``: forget old kicks; if the byte still has the value, poll the channel."""
        self.leave(_QUEUE)
        port = self._kicker(cpu, cpu.index)
        # Old kicks are forgotten first, or the poll would return at once.
        self._bit(self.platform.hv.abi.evtchn_pending, port, value=False)
        # Only while the byte still has the value: it may have been unlocked since (``xen_qlock_wait``).
        if cpu.u8(ptr) == val:
            cpu.ret()
            self._poll(cpu, port)

    def _poll(self, cpu: Vcpu, port: int) -> None:
        address = self.below_stack(cpu)
        poll = _POLL.at(self.bits).form.pack(address + _PORTS, 1, 0)
        cpu.write_virtual(address, poll.ljust(_PORTS, b"\0") + _SEND.at(self.bits).form.pack(port))
        self.platform.hypercall(cpu, Hypercall.SCHED_OP, SchedOp.POLL, address)

    @hookimpl
    def lock_kick(self, cpu: Vcpu, cpu_nr: int) -> None:
        """``xen_qlock_kick``: send the event."""
        port = self._kicker(cpu, cpu_nr) if self.linux is None else self._own_kicker(self.linux, cpu_nr)
        # No kick where nobody has a channel yet.
        if port is None:
            return
        address = self.argument(cpu, _SEND.at(self.bits).form.pack(port))
        self.platform.hypercall(cpu, Hypercall.EVENT_CHANNEL_OP, EvtchnOp.SEND, address)

    def _own_kicker(self, linux: Linux, number: int) -> int | None:
        """A kernel's event channel for kicks of a processor (``xen_send_IPI_one``); None before there is one."""
        if "ipi_to_evtchn" not in linux.names:  # it is to be found by the interrupt then, which the kernel keeps
            self.leave("the event channel of an interrupt")
        if linux.u32_of("lock_kicker_irq", number) == _NO_IRQ:
            return None
        vector = linux.names.enumerator("ipi_vector", "XEN_SPIN_UNLOCK_VECTOR")
        port = linux.memory.u32(linux.of_cpu("ipi_to_evtchn", number) + 4 * vector)
        if not port:
            self.bug(f"processor {number} has no event channel for spinlocks")
        return port

    @hookimpl
    def queued_spin_lock_slowpath(self, cpu: Vcpu, lock: int, val: int) -> None:
        """Take the lock, or mark that somebody sleeps for it and sleep; tried again after a kick, in order."""
        del val
        self.leave(_QUEUE)
        queue = self.locks.waiters.setdefault(lock, [])
        # In order of arrival: a vCPU that comes later must not overtake one that sleeps.
        if not cpu.u8(lock) and (not queue or queue[0] == cpu.index):
            if queue:
                queue.pop(0)
            cpu.set_u8(lock, _SLOW if queue else _LOCKED)
            return
        if cpu.index not in queue:
            queue.append(cpu.index)
        cpu.set_u8(lock, cpu.u8(lock) and _SLOW)
        port = self._kicker(cpu, cpu.index)
        self._bit(self.platform.hv.abi.evtchn_pending, port, value=False)
        self._poll(cpu, port)
        # Called again when this vCPU is kicked, and looks at the lock anew.
        raise Reschedule

    @hookimpl
    def queued_spin_unlock(self, cpu: Vcpu, lock: int) -> None:
        """Release the lock; the first who sleeps for it is kicked."""
        if self.linux is not None:
            self._unlock(cpu, self.linux, lock)
            return
        cpu.set_u8(lock, 0)
        queue = self.locks.waiters.get(lock)
        if queue:
            self.lock_kick(cpu, queue[0])

    def _unlock(self, cpu: Vcpu, linux: Linux, lock: int) -> None:
        """``__pv_queued_spin_unlock``: who sleeps for it is in a table by the lock (``pv_unhash``)."""
        held = cpu.u8(lock)
        if held == _LOCKED:
            cpu.set_u8(lock, 0)
            return
        # ``pv_unhash``: a lock that is not in the table has lost its waiter, which the kernel reports itself.
        place = self._hashed(cpu, linux, lock) if held == _SLOW else None
        if place is None:
            self.leave("the warning about a lock that nobody holds")
            return
        node = cpu.word(place + linux.names.member("pv_hash_entry", "node"))
        cpu.set_word(place, 0)
        cpu.set_u8(lock, 0)
        self.lock_kick(cpu, cpu.u32(node + linux.names.member("pv_node", "cpu")))

    @staticmethod
    def _hashed(cpu: Vcpu, linux: Linux, lock: int) -> int | None:
        """Address of a lock's entry in ``pv_lock_hash``; None if it has none."""
        size, count = linux.names.size("struct pv_hash_entry"), 1 << linux.u32("pv_lock_hash_bits")
        table = linux.variable("pv_lock_hash")
        data = cpu.read_virtual(table, size * count)
        locks = (int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), size))
        return next((table + size * number for number, each in enumerate(locks) if each == lock), None)

    @hookimpl
    def vcpu_is_preempted(self, cpu: Vcpu, cpu_nr: int) -> int:
        """``xen_vcpu_stolen``: another vCPU that could run but does not, for this one runs now."""
        if self.linux is not None:
            return int(self.linux.u32_of("xen_runstate", cpu_nr) == _RUNNABLE)
        # A vCPU that does not run because nobody woke it is not preempted.
        if cpu_nr == cpu.index or not 0 <= cpu_nr < len(self.env.machine.vcpus):
            return 0
        up = self.platform.hv.domain.vcpus[cpu_nr].up
        return int(up and not self.env.machine.vcpus[cpu_nr].halted)
