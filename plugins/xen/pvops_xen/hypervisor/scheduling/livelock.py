"""A live-lock of upcalls: each return from the handler of events finds another pending, and nothing else ever runs.

Neither Xen nor the guest would end it. A handler that sends itself an event each time is one (Linux with PREEMPT_RT).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.faults import GuestFault
from pvops_xen.hypervisor.abi import PAGE_SIZE
from pvops_xen.hypervisor.events.upcalls import upcall_due

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

PATIENCE: Final = 10_000
"""Upcalls in a row that interrupt one and the same place before anything of it has been executed."""
_CALL: Final = 0xE8  # call rel32: what stands before an address that is returned to
_CALL_SIZE: Final = 5
_NAMES: Final = 24


def after_iret(hv: Hypervisor, cpu: Vcpu) -> None:
    """Count it if an upcall comes at once, where the last came too."""
    state = hv.state(cpu)
    # A vCPU that goes on, or sleeps, is in no such loop.
    if cpu.halted or not upcall_due(hv, cpu.index):
        state.upcalls_in_row = 0
        return
    place = cpu.rip, cpu.rsp
    # Same place and stack: nothing of what was interrupted has been executed.
    state.upcalls_in_row = state.upcalls_in_row + 1 if place == state.interrupted else 0
    state.interrupted = place
    # Twice as long when nobody has sent an event, which would say more of the reason.
    if state.upcalls_in_row > 2 * PATIENCE:
        _end(hv, cpu, "")


def on_send(hv: Hypervisor, cpu: Vcpu) -> None:
    """The guest sends an event: in a live-lock, who does is what it is about."""
    if hv.state(cpu).upcalls_in_row > PATIENCE:
        _end(hv, cpu, " <- ".join(_callers(hv, cpu)))


def _end(hv: Hypervisor, cpu: Vcpu, callers: str) -> None:
    state = hv.state(cpu)
    place = state.interrupted[0]
    found = hv.stats.symbol_at(place)
    where = f"{found[0]}+{found[1]:#x} ({place:#x})" if found else f"{place:#x}"
    sender = f"; it sends itself events: {callers}" if callers else ""
    row = state.upcalls_in_row
    state.upcalls_in_row = 0
    hv.machine.stop("crash", f"live-lock of upcalls: vcpu {cpu.index} was interrupted {row:,} times at {where}{sender}")


def _callers(hv: Hypervisor, cpu: Vcpu) -> list[str]:
    """Functions that return addresses on the stack belong to, innermost first: what lies there of old ones too."""
    word = hv.abi.word
    # Up to the end of the stack's page: beyond it somebody else's memory begins.
    data = cpu.read_virtual(cpu.rsp, -cpu.rsp % PAGE_SIZE // word * word or PAGE_SIZE)
    names: list[str] = []
    for at in range(0, len(data), word):
        address = int.from_bytes(data[at : at + word], "little")
        found = hv.stats.symbol_at(address)
        if found and found[0] not in names[-1:] and _behind_call(cpu, address):
            names.append(found[0])
    return names[:_NAMES]


def _behind_call(cpu: Vcpu, address: int) -> bool:
    try:
        return cpu.read_virtual(address - _CALL_SIZE, 1)[0] == _CALL
    except GuestFault:
        return False
