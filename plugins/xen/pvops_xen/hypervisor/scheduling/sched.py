"""``sched_op`` and ``set_timer_op``: giving up the CPU, sleeping, ending the run (xen/common/sched/core.c)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import EINVAL, ENOSPC, ENOSYS, EPERM, ESRCH, SHUTDOWN_REASONS, SchedOp
from pvops_xen.hypervisor.events.channels import find, is_pending
from pvops_xen.hypervisor.events.upcalls import block, upcall_due
from pvops_xen.hypervisor.scheduling import runstate
from pvops_xen.hypervisor.scheduling.timers import NS, WATCHDOGS
from pvops_xen.hypervisor.state import ChannelState
from pvops_xen.public import SCHED

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_MAX_POLL_PORTS: Final = 128  # do_poll: "Fairly arbitrary limit."
_POLL: Final = SCHED["sched_poll"].whole("ports", "nr_ports", "timeout")
_REMOTE: Final = SCHED["sched_remote_shutdown"].whole("domain_id")
_WATCHDOG: Final = SCHED["sched_watchdog"].whole("id", "timeout")
_FAR: Final = 1 << 50  # 13 days: do_set_timer_op takes more for the jiffies of Linux having wrapped,
_SOON: Final = 100_000_000  # and wakes the guest so soon instead
_YIELD_NS: Final = 1_000  # what a turn of the other vCPUs costs the one that yields


def _yield(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    del cpu, argument
    # Time passes, or a vCPU that spins on another would never see it run.
    hv.machine.clock.advance(_YIELD_NS)
    return 0


def _block(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """Unmask upcalls and sleep until one is pending: both in one step, so that none is missed."""
    del argument
    # Unmasked before the sleep, or an event that comes in between would never wake it.
    hv.memory.set_u8(hv.state(cpu).info + hv.abi.upcall_mask, 0)
    block(hv, cpu.index)
    return 0


def _shutdown(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    return shutdown(hv, access.read_u32(hv, cpu, argument))


def shutdown(hv: Hypervisor, reason: int) -> int:
    """End the run for a reason of the guest's (SHUTDOWN_*), or for the one that it gave before."""
    said = hv.domain.shutdown_code
    # What was said before counts, since the guest may die before it says it again.
    reason = (reason if said is None else said) & 0xFF
    if reason >= len(SHUTDOWN_REASONS):
        hv.machine.stop("crash", f"the guest shut down for reason {reason}, which is none")
        return 0
    name = SHUTDOWN_REASONS[reason]
    details = {"crash": "the guest says that it has crashed", "watchdog": "a watchdog of the guest's has expired"}
    # A watchdog's end is the guest's failure, whatever it calls it.
    hv.machine.stop("crash" if name == "watchdog" else name, details.get(name, ""))
    return 0


def _shutdown_code(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """The reason that a later shutdown will have, whatever it says itself."""
    code = access.read_u32(hv, cpu, argument) & 0xFF
    if hv.domain.shutdown_code is None:
        hv.domain.shutdown_code = code
    return 0


def _remote_shutdown(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """Only those that control domains may end them, this one itself by this call included."""
    (domid,) = access.fetch(hv, cpu, argument, _REMOTE)
    # dom0 may, and this domain may not; of others there is none.
    return -EPERM if domid in {0, hv.domain.domid} else -ESRCH


def _pin_override(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """For the hardware's domain: who asks is looked at before what."""
    del hv, cpu, argument
    return -EPERM


def _watchdog(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """Start a watchdog (number 0; the answer is its number), set it anew, or end it (timeout 0)."""
    number, seconds = access.fetch(hv, cpu, argument, _WATCHDOG)
    timers, expiry = hv.domain.watchdogs, hv.machine.clock.ns + seconds * NS
    if number > WATCHDOGS:
        return -EINVAL
    if not number:
        # 0 asks for a new timer; other numbers name one.
        free = next((each for each in range(1, WATCHDOGS + 1) if each not in timers), None)
        if free is None:
            return -ENOSPC
        timers[free] = expiry
        return free
    if number not in timers:
        return -EINVAL
    if seconds:
        timers[number] = expiry
    else:
        del timers[number]
    return 0


def _poll(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """Sleep until one of some ports is pending, masked or not, or a time has come.

    An upcall that is due, and then each port in its turn, is looked at before what comes after it.
    """
    handle, count, timeout = access.fetch(hv, cpu, argument, _POLL)
    if count > _MAX_POLL_PORTS:
        return -EINVAL
    # Looked at as a whole, so that a bad pointer is told before anything else.
    access.check(hv.abi, handle, 4 * count)
    # An upcall that is due would end the sleep at once (``do_poll``).
    if upcall_due(hv, cpu.index):
        return 0
    ports = []
    for index in range(count):
        port = access.read_u32(hv, cpu, handle + 4 * index)
        channel = find(hv, port)
        # A port that nobody has is never pending, so the sleep would not end.
        if channel is None or channel.state == ChannelState.CLOSED:
            return -EINVAL
        if is_pending(hv, port):
            return 0
        ports.append(port)
    if timeout and timeout <= hv.machine.clock.ns:
        return 0
    state = hv.state(cpu)
    state.poll_ports, state.poll_until = tuple(ports), timeout or None
    cpu.halt()
    runstate.change(hv, cpu.index, runstate.BLOCKED)
    return 0


_OPERATIONS: Final[dict[int, Callable[[Hypervisor, Vcpu, int], int]]] = {
    SchedOp.YIELD: _yield,
    SchedOp.BLOCK: _block,
    SchedOp.SHUTDOWN: _shutdown,
    SchedOp.POLL: _poll,
    SchedOp.REMOTE_SHUTDOWN: _remote_shutdown,
    SchedOp.SHUTDOWN_CODE: _shutdown_code,
    SchedOp.WATCHDOG: _watchdog,
    SchedOp.PIN_OVERRIDE: _pin_override,
}


def sched_op(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """``sched_op(cmd, arg)``."""
    operation = _OPERATIONS.get(command)
    return operation(hv, cpu, argument) if operation else -ENOSYS


def sched_op_compat(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """The call of Xen 3.0: the shutdown reason is the argument itself."""
    if command == SchedOp.SHUTDOWN:
        return shutdown(hv, argument)
    return sched_op(hv, cpu, command, argument) if command in {SchedOp.YIELD, SchedOp.BLOCK} else -ENOSYS


def set_timer_op(hv: Hypervisor, cpu: Vcpu, timeout: int) -> int:
    """``set_timer_op(timeout)``: absolute ns; 0 stops the timer, a time that has passed fires it at once.

    A negative one, and one more than 13 days away, is a guest's mistake in reckoning: the timer fires in 100 ms.
    """
    state, now = hv.state(cpu), hv.machine.clock.ns
    # A time so far away is one of a wrapped counter: the guest is woken soon instead (``do_set_timer_op``).
    if timeout >> 63 or timeout - now >= _FAR:
        timeout = now + _SOON
    state.singleshot = timeout or None
    if timeout:
        # The slice must not run past it.
        cpu.expect(timeout)
    return 0
