"""The upcall of a vCPU, and waking it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_xen.hypervisor.scheduling import runstate

if TYPE_CHECKING:
    from pvops_xen.hypervisor.core import Hypervisor


def upcall_due(hv: Hypervisor, index: int) -> bool:
    """vcpu_event_delivery_is_enabled() and pending: the guest must be entered at its event callback."""
    info = hv.domain.vcpus[index].info
    return bool(hv.memory.u8(info)) and not hv.memory.u8(info + hv.abi.upcall_mask)


def make_upcall_pending(hv: Hypervisor, index: int) -> None:
    """vcpu_mark_events_pending(); a vCPU that sleeps with upcalls unmasked wakes."""
    state = hv.domain.vcpus[index]
    hv.memory.set_u8(state.info, 1)
    # Masked, the guest looks by itself when it unmasks; waking it would be for nothing.
    if not hv.memory.u8(state.info + hv.abi.upcall_mask):
        unblock(hv, index)


def block(hv: Hypervisor, index: int) -> None:
    """``vcpu_block``: the vCPU sleeps until it is unblocked, unless an upcall is due."""
    if not upcall_due(hv, index):
        # The last chance before it sleeps: an event that came meanwhile is not slept over.
        hv.machine.vcpus[index].halt()
        runstate.change(hv, index, runstate.BLOCKED)


def unblock(hv: Hypervisor, index: int) -> None:
    """``vcpu_unblock``: a vCPU that sleeps goes on, and polls no more. One that is down stays so."""
    state = hv.domain.vcpus[index]
    state.poll_ports = state.poll_until = None
    # A vCPU that is down stays down whatever it is told.
    if state.up and hv.machine.vcpus[index].halted:
        hv.machine.vcpus[index].wake()
        runstate.change(hv, index, runstate.RUNNING)


def wake_pollers(hv: Hypervisor, port: int) -> None:
    """``evtchn_check_pollers``: who waits for one port is woken by that; who waits for several, by any."""
    for state in hv.domain.vcpus:
        ports = state.poll_ports
        # A poll for several ports is woken by any of them (``evtchn_check_pollers``).
        if ports is not None and (len(ports) != 1 or ports[0] == port):
            unblock(hv, state.index)
