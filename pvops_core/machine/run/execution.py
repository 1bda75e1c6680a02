"""One stretch of guest code on one engine, and what the engine came out for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.errors import MachineError
from pvops_core.machine.engines import BUS_ERRORS, ERROR_NAMES, StateWord
from pvops_core.machine.run.stops import Stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine.exits.cpuslot import CpuSlot

_EXPIRED, _FRONTIER = int(StateWord.EXPIRED), int(StateWord.FRONTIER)
_HLT: Final = 0xF4


def enter(slot: CpuSlot, interrupted: Callable[[], bool]) -> int:
    """Run the engine until the slice ends; each handler that moves RIP makes it begin again there.

    Args:
        slot: whose.
        interrupted: whether a handler has asked for an end.

    Returns:
        The engine's status: 0, or why it could not go on.
    """
    callbacks, handlers = slot.callbacks, slot.handlers
    page_end = handlers.page_end
    # Before the engine translates its first block, of which it tells nobody.
    if callbacks.limits is not None:
        callbacks.limits.begin()
    if callbacks.whole.waiting:
        callbacks.whole.begin()
    # The engine begins anew wherever a handler has moved RIP; all of these stretches are one slice.
    while True:
        handlers.moved = False
        callbacks.whole.forget()
        status = slot.engine.start(slot.vcpu.rip)
        handlers.arrive()
        # In any case: what a stub counted must be told before anybody else looks.
        slot.vcpu.unstub_ports()
        paused = callbacks.limits is not None and callbacks.limits.goes_on()
        leaves = bool(status) or interrupted() or bool(slot.state[_EXPIRED]) or handlers.postponed is not None
        # An end that somebody asked for goes before looking for a page's end, which begins again with the next slice.
        if page_end.wanted or page_end.armed:
            if not leaves and not handlers.moved and page_end.goes_on():
                continue
            page_end.end()
        if leaves or not (handlers.moved or paused):
            return status


def step(slot: CpuSlot, start: int) -> int:
    """Run one instruction; the engine's status."""
    callbacks, handlers, state = slot.callbacks, slot.handlers, slot.state
    callbacks.whole.looked = False
    callbacks.whole.forget()
    status = slot.engine.step(start)
    if callbacks.whole.looked and slot.vcpu.rip == start:  # it has looked at the block, which has not run
        status = slot.engine.step(start)
    if handlers.page_end.wanted and slot.vcpu.rip == start:  # else it is about what comes next
        handlers.page_end.arm()
        status = slot.engine.step(start)
    handlers.arrive()
    handlers.page_end.end()
    # A pause that was begun must be over, though a step gives the engine no time to come to it.
    if callbacks.limits is not None:
        callbacks.limits.goes_on()
    slot.vcpu.unstub_ports()
    at = slot.vcpu.rip
    if start < at < state[_FRONTIER] & slot.vcpu.machine.kind.mask:
        state[_FRONTIER] = at  # the engine has begun a longer block, and left it
    return status


def bad_end(slot: CpuSlot, status: int) -> Stop:
    """How a run ends whose engine could not go on; MachineError where that is nothing that a guest can do."""
    vcpu = slot.vcpu
    if done := BUS_ERRORS.get(status):
        return Stop("crash", f"vcpu {vcpu.index} at {vcpu.rip:#x}: {done}")
    name = ERROR_NAMES.get(status, str(status))
    raise MachineError(f"the engine stopped: {name}", vcpu=vcpu.index, rip=vcpu.rip)


def after_hlt(slot: CpuSlot) -> bool:
    """The instruction that ends at RIP is hlt, which only level 0 can have executed."""
    vcpu = slot.vcpu
    return vcpu.cpl == 0 and vcpu.virtual.number(vcpu.rip - 1, 1, system=True) == _HLT
