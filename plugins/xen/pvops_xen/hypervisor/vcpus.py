"""``vcpu_op``: bringing vCPUs up and down, their shared areas and their timers (xen/common/domain.c)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import (
    EEXIST,
    EINVAL,
    ENOENT,
    ENOSYS,
    ETIME,
    PAGE_SHIFT,
    PAGE_SIZE,
    VCPU_SSHOTTMR_FUTURE,
    VcpuOp,
)
from pvops_xen.hypervisor.context import initialise
from pvops_xen.hypervisor.events import make_upcall_pending
from pvops_xen.hypervisor.frames import FrameType
from pvops_xen.hypervisor.layout import VCPU_INFO_SIZE
from pvops_xen.hypervisor.timers import VCPU_TIME

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor
    from pvops_xen.hypervisor.state import VcpuState

_ENXIO: Final = 6
_SHORTEST_PERIOD: Final = 1_000_000
_RUNSTATE: Final = struct.Struct("<iIQQQQQ")  # a 32-bit guest has no padding after the state

Operation = Callable[["Hypervisor", "Vcpu", "VcpuState", int], int]


def _initialise(hv: Hypervisor, cpu: Vcpu, state: VcpuState, argument: int) -> int:
    if state.initialised:
        return -EEXIST
    return initialise(hv, cpu, state, argument)


def _up(hv: Hypervisor, cpu: Vcpu, state: VcpuState, argument: int) -> int:
    del cpu, argument
    if not state.initialised:
        return -EINVAL
    if not state.up:
        state.up = True
        hv.machine.vcpus[state.index].wake()
    return 0


def _down(hv: Hypervisor, cpu: Vcpu, state: VcpuState, argument: int) -> int:
    del cpu, argument
    state.up = False
    hv.machine.vcpus[state.index].halt()
    if not any(other.up for other in hv.domain.vcpus):
        hv.machine.stop("poweroff", "the last vCPU went down")
    return 0


def _is_up(hv: Hypervisor, cpu: Vcpu, state: VcpuState, argument: int) -> int:
    del hv, cpu, argument
    return int(state.up)


def _runstate(hv: Hypervisor) -> bytes:
    """RUNSTATE_running, all the time so far spent running: nobody steals time here."""
    now = hv.machine.clock.ns
    if hv.abi.bits == 64:
        return _RUNSTATE.pack(0, 0, 0, now, 0, 0, 0)
    return struct.pack("<i5Q", 0, 0, now, 0, 0, 0)


def _get_runstate(hv: Hypervisor, cpu: Vcpu, state: VcpuState, argument: int) -> int:
    del state
    access.write(hv, cpu, argument, _runstate(hv))
    return 0


def _register_runstate(hv: Hypervisor, cpu: Vcpu, state: VcpuState, argument: int) -> int:
    area = access.read_word(hv, cpu, argument)
    if area:
        access.write(hv, cpu, area, _runstate(hv))
    state.runstate_area = area
    return 0


def _set_periodic(hv: Hypervisor, cpu: Vcpu, state: VcpuState, argument: int) -> int:
    period = access.read_u64(hv, cpu, argument)
    if not _SHORTEST_PERIOD <= period < 1 << 62:
        return -EINVAL
    state.periodic = period
    state.periodic_next = hv.machine.clock.ns + period
    return 0


def _stop_periodic(hv: Hypervisor, cpu: Vcpu, state: VcpuState, argument: int) -> int:
    del hv, cpu, argument
    state.periodic = 0
    return 0


def _set_singleshot(hv: Hypervisor, cpu: Vcpu, state: VcpuState, argument: int) -> int:
    if state.index != cpu.index:
        return -EINVAL
    timeout, flags = struct.unpack("<QI", access.read(hv, cpu, argument, 12))
    if flags & VCPU_SSHOTTMR_FUTURE and timeout < hv.machine.clock.ns:
        return -ETIME
    state.singleshot = timeout
    cpu.expect(timeout)
    return 0


def _stop_singleshot(hv: Hypervisor, cpu: Vcpu, state: VcpuState, argument: int) -> int:
    del hv, argument
    if state.index != cpu.index:
        return -EINVAL
    state.singleshot = None
    return 0


def _register_info(hv: Hypervisor, cpu: Vcpu, state: VcpuState, argument: int) -> int:
    """Move a vCPU's vcpu_info into guest memory: contents go along, and everything counts as pending once."""
    mfn, offset = struct.unpack("<QI", access.read(hv, cpu, argument, 12))
    if offset > PAGE_SIZE - VCPU_INFO_SIZE:
        return -_ENXIO
    if state.info_registered or (state.index != cpu.index and state.up):
        return -EINVAL
    if hv.validator.get_page_and_type(mfn, FrameType.WRITABLE):
        return -EINVAL
    new = mfn << PAGE_SHIFT | offset
    hv.memory.write(new, hv.memory.read(state.info, VCPU_INFO_SIZE))
    state.info, state.info_registered = new, True
    word = hv.abi.word
    hv.memory.write(new + hv.abi.pending_sel, b"\xff" * word)
    make_upcall_pending(hv, state.index)
    return 0


def _get_physid(hv: Hypervisor, cpu: Vcpu, state: VcpuState, argument: int) -> int:
    del hv, cpu, state, argument
    return -EINVAL  # only a domain that owns the processors may know


def _register_time(hv: Hypervisor, cpu: Vcpu, state: VcpuState, argument: int) -> int:
    area = access.read_word(hv, cpu, argument)
    data = hv.memory.read(state.info + 32, VCPU_TIME.size)
    access.write(hv, cpu, area, data)
    state.time_area = area
    return 0


_OPERATIONS: Final[dict[int, Operation]] = {
    VcpuOp.INITIALISE: _initialise,
    VcpuOp.UP: _up,
    VcpuOp.DOWN: _down,
    VcpuOp.IS_UP: _is_up,
    VcpuOp.GET_RUNSTATE_INFO: _get_runstate,
    VcpuOp.REGISTER_RUNSTATE_MEMORY_AREA: _register_runstate,
    VcpuOp.SET_PERIODIC_TIMER: _set_periodic,
    VcpuOp.STOP_PERIODIC_TIMER: _stop_periodic,
    VcpuOp.SET_SINGLESHOT_TIMER: _set_singleshot,
    VcpuOp.STOP_SINGLESHOT_TIMER: _stop_singleshot,
    VcpuOp.REGISTER_VCPU_INFO: _register_info,
    VcpuOp.GET_PHYSID: _get_physid,
    VcpuOp.REGISTER_VCPU_TIME_MEMORY_AREA: _register_time,
}


def vcpu_op(hv: Hypervisor, cpu: Vcpu, command: int, vcpuid: int, argument: int) -> int:
    """``vcpu_op(cmd, vcpuid, extra_args)``: -ENOENT for a vCPU that the domain does not have."""
    vcpuid &= 0xFFFF_FFFF
    if vcpuid >= len(hv.domain.vcpus):
        return -ENOENT
    operation = _OPERATIONS.get(command & 0xFFFF_FFFF)
    return operation(hv, cpu, hv.domain.vcpus[vcpuid], argument) if operation else -ENOSYS
