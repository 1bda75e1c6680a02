"""How a vCPU spends its time (vcpu.h, ``struct vcpu_runstate_info``): nobody takes any from a vCPU that could run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.faults import GuestFault
from pvops_xen.hypervisor import access
from pvops_xen.public import VCPU

if TYPE_CHECKING:
    from pvops_xen.hypervisor.core import Hypervisor
    from pvops_xen.hypervisor.state import XenVcpuState

RUNNING: Final = 0
RUNNABLE: Final = 1
BLOCKED: Final = 2
_INFO: Final = VCPU["vcpu_runstate_info"].whole("state", "state_entry_time", "time")


def now(hv: Hypervisor, state: XenVcpuState) -> bytes:
    """The record as of now, in the guest's width."""
    run, clock = state.runstate, hv.machine.clock.ns
    times = list(run.times)
    # The present state's time is added only when it ends, so it is added for the reader.
    times[run.state] += clock - run.since
    return _INFO.at(hv.abi.bits).form.pack(run.state, run.since, *times)


def change(hv: Hypervisor, index: int, new: int) -> None:
    """A vCPU goes over into another state, and its registered area says so.

    An area that cannot be written to now is left as it is, as by Xen; it is right again after the next change.
    """
    state = hv.domain.vcpus[index]
    run, clock = state.runstate, hv.machine.clock.ns
    if run.state == new:
        return
    run.times[run.state] += clock - run.since
    run.state, run.since = new, clock
    if state.runstate_area:
        try:
            access.write(hv, hv.machine.vcpus[index], state.runstate_area, now(hv, state))
        except (access.BadHandleError, GuestFault):
            hv.log(f"the runstate area of vCPU {index} at {state.runstate_area:#x} cannot be written")
