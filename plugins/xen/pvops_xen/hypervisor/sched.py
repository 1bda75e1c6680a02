"""``sched_op`` and ``set_timer_op``: giving up the CPU, sleeping, ending the run (xen/common/sched/core.c)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import EINVAL, ENOSYS, SHUTDOWN_REASONS, SchedOp
from pvops_xen.hypervisor.events import is_pending

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_MAX_POLL_PORTS: Final = 128
_YIELD_NS: Final = 1_000  # what a turn of the other vCPUs costs the one that yields


def _yield(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    del cpu, argument
    hv.machine.clock.advance(_YIELD_NS)
    return 0


def _block(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """Unmask upcalls and sleep until one is pending: both in one step, so that none is missed."""
    del argument
    info = hv.state(cpu).info
    hv.memory.set_u8(info + 1, 0)
    if not hv.memory.u8(info):
        cpu.halt()
    return 0


def _shutdown(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    reason = access.read_u32(hv, cpu, argument)
    return shutdown(hv, reason)


def shutdown(hv: Hypervisor, reason: int) -> int:
    """End the run for a reason of the guest's (SHUTDOWN_*)."""
    reason &= 0xFF
    if reason >= len(SHUTDOWN_REASONS):
        hv.machine.stop("crash", f"the guest shut down for reason {reason}, which is none")
        return 0
    name = SHUTDOWN_REASONS[reason]
    detail = "the guest says that it has crashed" if name == "crash" else ""
    hv.machine.stop(name, detail)
    return 0


def _poll(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """Sleep until one of some ports is pending, masked or not, or a time has come."""
    word = hv.abi.word
    raw = access.read(hv, cpu, argument, 24 if word == 8 else 16)
    handle = int.from_bytes(raw[:word], "little")
    count, timeout = struct.unpack_from("<I4xQ" if word == 8 else "<IQ", raw, word)
    if count > _MAX_POLL_PORTS:
        return -EINVAL
    ports = struct.unpack(f"<{count}I", access.read(hv, cpu, handle, 4 * count))
    if any(not 0 < port < len(hv.domain.channels) for port in ports):
        return -EINVAL
    state = hv.state(cpu)
    if any(is_pending(hv, port) for port in ports) or (timeout and timeout <= hv.machine.clock.ns):
        return 0
    state.poll_ports, state.poll_until = ports, timeout or None
    cpu.halt()
    return 0


_OPERATIONS: Final[dict[int, Callable[[Hypervisor, Vcpu, int], int]]] = {
    SchedOp.YIELD: _yield,
    SchedOp.BLOCK: _block,
    SchedOp.SHUTDOWN: _shutdown,
    SchedOp.POLL: _poll,
}


def sched_op(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """``sched_op(cmd, arg)``."""
    operation = _OPERATIONS.get(command & 0xFFFF_FFFF)
    return operation(hv, cpu, argument) if operation else -ENOSYS


def sched_op_compat(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """The call of Xen 3.0: the shutdown reason is the argument itself."""
    if command == SchedOp.SHUTDOWN:
        return shutdown(hv, argument & 0xFFFF_FFFF)
    return sched_op(hv, cpu, command, argument) if command in {SchedOp.YIELD, SchedOp.BLOCK} else -ENOSYS


def set_timer_op(hv: Hypervisor, cpu: Vcpu, timeout: int) -> int:
    """``set_timer_op(timeout)``: absolute ns; 0 stops the timer, a time that has passed fires it at once."""
    state = hv.state(cpu)
    state.singleshot = timeout or None
    if timeout:
        cpu.expect(timeout)
    return 0
