"""Time as Xen gives it to a guest: pvclock records, one-shot and periodic timers of each vCPU, on the virtual clock."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.faults import GuestFault
from pvops_xen.hypervisor import access
from pvops_xen.hypervisor.abi import Virq
from pvops_xen.hypervisor.events.channels import raise_virq, serve
from pvops_xen.hypervisor.events.upcalls import unblock
from pvops_xen.public import XEN
from pvops_xen.xenstore.toolstack import request_shutdown

if TYPE_CHECKING:
    from pvops_xen.hypervisor.core import Hypervisor
    from pvops_xen.hypervisor.state import XenVcpuState

NS: Final = 1_000_000_000
EPOCH: Final = NS
"""How often Xen calibrates its clocks."""
WATCHDOGS: Final = 2  # that a domain can have

# One TSC tick is one nanosecond: ((tsc << 1) * 2^31) >> 32.
MULTIPLIER: Final = 1 << 31
SHIFT: Final = 1
_TSC_STABLE: Final = 1  # XEN_PVCLOCK_TSC_STABLE_BIT
VCPU_TIME: Final = XEN["vcpu_time_info"].whole(
    "version", "tsc_timestamp", "system_time", "tsc_to_system_mul", "tsc_shift", "flags"
)
_WALL_CLOCK: Final = XEN["shared_info"].part("wc_version", "wc_sec", "wc_nsec")


def renew_time(hv: Hypervisor, index: int) -> None:
    """``__update_vcpu_system_time``: vcpu_info.time and the registered area get Xen's latest calibration.

    Xen calibrates every second, so a record is right for one more second at least. What Xen forces anew (an area that
    is registered) differs in its version alone.
    """
    state = hv.domain.vcpus[index]
    # Of the second that has begun, as Xen's calibration stamps it.
    stamp = hv.machine.clock.ns // EPOCH * EPOCH
    state.time_until = stamp + EPOCH
    address = state.info + hv.abi.time
    # Odd while it is written: a reader that sees that reads again (``struct pvclock_vcpu_time_info``).
    version = ((hv.memory.u32(address) + 1 | 1) + 1) & 0xFFFF_FFFF  # odd while it is being written
    record = VCPU_TIME.at(hv.abi.bits).form.pack(version, stamp, stamp, MULTIPLIER, SHIFT, _TSC_STABLE)
    hv.memory.write(address, record)
    if state.time_area:
        # A bad area of the guest's is the guest's loss.
        with access.as_kernel(state), contextlib.suppress(access.BadHandleError, GuestFault):
            access.write(hv, hv.machine.vcpus[index], state.time_area, record)


def write_wallclock(hv: Hypervisor, seconds: int) -> None:
    """Fill shared_info's wall clock: the date when system time was 0, in seconds since 1970."""
    base = hv.domain.shared_info
    clock = _WALL_CLOCK.at(hv.abi.bits)
    # Version 2: even, so readers take it at once, and never written again.
    hv.memory.write(base + clock.offset, clock.form.pack(2, seconds & 0xFFFF_FFFF, 0))
    hv.memory.set_u32(base + hv.abi.wc_sec_hi, seconds >> 32)


def next_deadline(hv: Hypervisor) -> int | None:
    """When the guest hears of a timer next, or of its toolstack, in ns of the virtual clock; None for never."""
    times: list[int | None] = list(hv.domain.watchdogs.values())
    if hv.domain.asked:
        times.append(hv.domain.asked[1])
    for state in hv.domain.vcpus:
        times.append(state.poll_until)
        if Virq.TIMER in state.virqs:
            times += [state.singleshot, state.periodic_next if _ticks(hv, state) else None]
    return min((time for time in times if time is not None), default=None)


def _ticks(hv: Hypervisor, state: XenVcpuState) -> bool:
    """The periodic timer of a vCPU ticks as long as it runs; it wakes nobody, and what was missed comes as one tick."""
    # A periodic timer of a vCPU that sleeps does not wake it (VCPUOP_set_periodic_timer in a domain that blocks).
    return bool(state.periodic) and state.up and not hv.machine.vcpus[state.index].halted


def fire_due(hv: Hypervisor) -> None:
    """Raise VIRQ_TIMER on the vCPUs whose timers have expired, and end polls that have timed out."""
    now = hv.machine.clock.ns
    if any(time <= now for time in hv.domain.watchdogs.values()):
        hv.machine.stop("crash", "a watchdog of the guest's has expired")
    if hv.domain.asked and hv.domain.asked[1] <= now:
        # Once: the guest is asked, and answers by shutting down.
        (word, _), hv.domain.asked = hv.domain.asked, None
        request_shutdown(hv.store.daemon, hv.domain.domid, word)
        serve(hv, hv.store.port)
    for state in hv.domain.vcpus:
        due = False
        if state.singleshot is not None and state.singleshot <= now:
            state.singleshot = None
            due = True
        if _ticks(hv, state) and state.periodic_next <= now:
            # What was missed while the vCPU did not run comes as one tick.
            state.periodic_next = now + state.periodic
            due = True
        if due:
            raise_virq(hv, state.index, Virq.TIMER)
        if state.poll_until is not None and state.poll_until <= now:
            unblock(hv, state.index)
