"""``vcpu_op``: bringing vCPUs up and down, their shared areas and their timers (xen/common/domain.c)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.faults import GuestFault
from pvops_core.x86 import NMI
from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import (
    EEXIST,
    EINVAL,
    ENOENT,
    ENOSYS,
    PAGE_SHIFT,
    PAGE_SIZE,
    VcpuOp,
)
from pvops_xen.hypervisor.events.upcalls import make_upcall_pending
from pvops_xen.hypervisor.layout import GUEST_CONTEXT
from pvops_xen.hypervisor.memory.frames import FrameType
from pvops_xen.hypervisor.processor.context import initialise
from pvops_xen.hypervisor.scheduling import runstate
from pvops_xen.hypervisor.scheduling.timers import VCPU_TIME, renew_time
from pvops_xen.hypervisor.state import OFFLINE
from pvops_xen.public import VCPU

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor
    from pvops_xen.hypervisor.state import XenVcpuState

_ENXIO: Final = 6
_SHORTEST_PERIOD: Final = 1_000_000  # VCPUOP_set_periodic_timer refuses less than a millisecond
_PERIODIC: Final = VCPU["vcpu_set_periodic_timer"].whole("period_ns")
_SINGLESHOT: Final = VCPU["vcpu_set_singleshot_timer"].whole("timeout_abs_ns")
_INFO: Final = VCPU["vcpu_register_vcpu_info"].whole("mfn", "offset")
_RUNSTATE_AREA: Final = VCPU["vcpu_register_runstate_memory_area"].part("addr.h")
_TIME_AREA: Final = VCPU["vcpu_register_time_memory_area"].part("addr.h")

Operation = Callable[["Hypervisor", "Vcpu", "XenVcpuState", int], int]


def _initialise(hv: Hypervisor, cpu: Vcpu, state: XenVcpuState, argument: int) -> int:
    raw = access.read(hv, cpu, argument, GUEST_CONTEXT.size(hv.abi.bits))
    # Looked at first: a vCPU that has been initialised is not even offered a context.
    return -EEXIST if state.initialised else initialise(hv, state, raw)


def _up(hv: Hypervisor, cpu: Vcpu, state: XenVcpuState, argument: int) -> int:
    del cpu, argument
    if not state.initialised:
        return -EINVAL
    # Twice up is up once, and no error.
    if not state.up:
        state.up = True
        hv.machine.vcpus[state.index].wake()
        runstate.change(hv, state.index, runstate.RUNNING)
    return 0


def _down(hv: Hypervisor, cpu: Vcpu, state: XenVcpuState, argument: int) -> int:
    del cpu, argument
    # The last one that goes down ends the domain: nobody could ever wake it.
    if not any(other.up for other in hv.domain.vcpus if other is not state):
        hv.machine.stop("poweroff", "the last vCPU went down")
        return 0
    state.up = False
    hv.machine.vcpus[state.index].halt()
    runstate.change(hv, state.index, OFFLINE)
    return 0


def _is_up(hv: Hypervisor, cpu: Vcpu, state: XenVcpuState, argument: int) -> int:
    del hv, cpu, argument
    return int(state.up)


def _get_runstate(hv: Hypervisor, cpu: Vcpu, state: XenVcpuState, argument: int) -> int:
    access.write(hv, cpu, argument, runstate.now(hv, state))
    return 0


def _register_runstate(hv: Hypervisor, cpu: Vcpu, state: XenVcpuState, argument: int) -> int:
    (area,) = access.fetch(hv, cpu, argument, _RUNSTATE_AREA)
    # Checked as a range, since the area is written whenever the vCPU's state changes.
    access.check(hv.abi, area, len(runstate.now(hv, state)))
    state.runstate_area = area
    _try_to_write(hv, cpu, area, runstate.now(hv, state))
    return 0


def _try_to_write(hv: Hypervisor, cpu: Vcpu, area: int, data: bytes) -> None:
    """Fill an area that was registered, if it can be written to now."""
    if area:
        with contextlib.suppress(GuestFault):
            access.write(hv, cpu, area, data)


def _set_periodic(hv: Hypervisor, cpu: Vcpu, state: XenVcpuState, argument: int) -> int:
    (period,) = access.fetch(hv, cpu, argument, _PERIODIC)
    if not _SHORTEST_PERIOD <= period < 1 << 62:
        return -EINVAL
    state.periodic = period
    state.periodic_next = hv.machine.clock.ns + period
    return 0


def _stop_periodic(hv: Hypervisor, cpu: Vcpu, state: XenVcpuState, argument: int) -> int:
    del hv, cpu, argument
    state.periodic = 0
    return 0


def _set_singleshot(hv: Hypervisor, cpu: Vcpu, state: XenVcpuState, argument: int) -> int:
    # Each vCPU has its own timer, and only it may set it (``VCPUOP_set_singleshot_timer``).
    if state.index != cpu.index:
        return -EINVAL
    # Of the flags Xen looks at none any more: a time that has passed fires at once.
    (timeout,) = access.fetch(hv, cpu, argument, _SINGLESHOT)
    state.singleshot = timeout if timeout < 1 << 63 else 0  # a negative time has passed
    cpu.expect(state.singleshot)
    return 0


def _stop_singleshot(hv: Hypervisor, cpu: Vcpu, state: XenVcpuState, argument: int) -> int:
    del hv, argument
    if state.index != cpu.index:
        return -EINVAL
    state.singleshot = None
    return 0


def _register_info(hv: Hypervisor, cpu: Vcpu, state: XenVcpuState, argument: int) -> int:
    """Move a vCPU's vcpu_info into guest memory: contents go along, and everything counts as pending once."""
    mfn, offset = access.fetch(hv, cpu, argument, _INFO)
    # It must not reach over the page's end, since one frame is taken for it.
    if offset > PAGE_SIZE - hv.abi.vcpu_info_size or offset % hv.abi.word:
        return -_ENXIO
    # Registered once and for all; another vCPU's only while that is down.
    if state.info_registered or (state.index != cpu.index and state.up):
        return -EINVAL
    if hv.validator.get_page_and_type(mfn, FrameType.WRITABLE):
        return -EINVAL
    new = mfn << PAGE_SHIFT | offset
    # What was pending stays pending: the contents go along.
    hv.memory.write(new, hv.memory.read(state.info, hv.abi.vcpu_info_size))
    state.info, state.info_registered = new, True
    word = hv.abi.word
    # ``map_vcpu_info``: everything counts as pending once, since events may have come in between.
    hv.memory.write(new + hv.abi.pending_sel, b"\xff" * word)
    make_upcall_pending(hv, state.index)
    renew_time(hv, state.index)
    return 0


def _get_physid(hv: Hypervisor, cpu: Vcpu, state: XenVcpuState, argument: int) -> int:
    del hv, cpu, state, argument
    return -EINVAL  # only a domain that owns the processors may know


def _register_time(hv: Hypervisor, cpu: Vcpu, state: XenVcpuState, argument: int) -> int:
    (area,) = access.fetch(hv, cpu, argument, _TIME_AREA)
    access.check(hv.abi, area, VCPU_TIME.at(hv.abi.bits).form.size)
    state.time_area = area
    renew_time(hv, state.index)
    return 0


def _send_nmi(hv: Hypervisor, cpu: Vcpu, state: XenVcpuState, argument: int) -> int:
    """Whatever the vCPU masks; without a handler it is lost."""
    del cpu
    if argument:
        return -EINVAL
    # NMI masks nothing and is masked by nothing but a missing handler.
    if not state.traps[NMI].missing(hv.abi.bits) and state.up:
        hv.machine.vcpus[state.index].raise_unmaskable(NMI)
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
    VcpuOp.SEND_NMI: _send_nmi,
    VcpuOp.GET_PHYSID: _get_physid,
    VcpuOp.REGISTER_VCPU_TIME_MEMORY_AREA: _register_time,
}


def vcpu_op(hv: Hypervisor, cpu: Vcpu, command: int, vcpuid: int, argument: int) -> int:
    """``vcpu_op(cmd, vcpuid, extra_args)``: -ENOENT for a vCPU that the domain does not have."""
    if vcpuid >= len(hv.domain.vcpus):
        return -ENOENT
    operation = _OPERATIONS.get(command)
    return operation(hv, cpu, hv.domain.vcpus[vcpuid], argument) if operation else -ENOSYS
