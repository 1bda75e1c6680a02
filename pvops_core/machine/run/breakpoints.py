"""Python called when a vCPU is about to execute one instruction: what debuggers call a breakpoint.

Guest text is not touched: the engine has a hook on the one address, which costs 0.6 us where it is. Only one that acts
costs something elsewhere too: code must then look for a stop in the middle of blocks. Hooks belong to the machine and
not to its snapshots: restoring one neither brings a breakpoint back nor takes it away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import MachineError

if TYPE_CHECKING:
    from pvops_core.machine.cpu.vcpu import Vcpu
    from pvops_core.machine.exits.cpuslot import CpuSlot
    from pvops_core.machine.run.runloop import RunLoop

Action = Callable[["Vcpu"], None]
Standing = tuple[int, int] | None
"""Where a vCPU stands whose arrival has been told: address and stack pointer."""


@attrs.frozen(eq=False)
class Breakpoint:
    """One breakpoint.

    Attributes:
        address: guest-virtual address of the instruction.
        action: called with the vCPU, RIP at the instruction, before that is executed; a handler like any other. Where
            it moves RIP, the instruction is not executed.
        acts: whether it may do that, or stop the machine; else it only looks.
    """

    address: int
    action: Action
    acts: bool = True


@attrs.define(eq=False)
class _Hooked:
    """An address with its breakpoints, the hook of each engine there, and whether that may stop the engine."""

    breakpoints: list[Breakpoint]
    hooks: list[int]
    acts: bool = False


class Breakpoints:
    """The breakpoints of one machine; a ``Stateful`` part of it."""

    def __init__(self, loop: RunLoop, slots: list[CpuSlot]) -> None:
        self._loop = loop
        self._slots = slots
        self._places: dict[int, _Hooked] = {}
        self._standing: dict[int, tuple[int, int]] = {}

    def add(self, address: int, action: Action, *, acts: bool = True) -> Breakpoint:
        """Call ``action`` from now on, on every vCPU; of several at one address, in the order of adding.

        Raises:
            MachineError: a handler is running; defer it.
        """
        self._outside()
        breakpoint_ = Breakpoint(address, action, acts)
        place = self._places.setdefault(address, _Hooked([], []))
        place.breakpoints.append(breakpoint_)
        self._hook(address, place)
        return breakpoint_

    def _hook(self, address: int, place: _Hooked) -> None:
        """Have the hooks that the place's breakpoints need."""
        acts = any(each.acts for each in place.breakpoints)
        # Hooks of the right kind stand already: making one anew drops all translated code.
        if place.breakpoints and place.hooks and place.acts == acts:
            return
        if place.hooks:
            for slot, hook in zip(self._slots, place.hooks, strict=True):
                slot.addresses.unhook(hook)
            place.hooks.clear()
        if place.breakpoints:
            place.acts = acts
            for slot in self._slots:
                place.hooks.append(slot.addresses.hook_at(address, self._reached, acts=acts))
                slot.addresses.gates_last(address, address)

    def remove(self, breakpoint_: Breakpoint) -> None:
        """Never call it again; nothing happens if it is not there.

        Raises:
            MachineError: a handler is running; defer it.
        """
        self._outside()
        place = self._places.get(breakpoint_.address)
        if place is None or breakpoint_ not in place.breakpoints:
            return
        place.breakpoints.remove(breakpoint_)
        self._hook(breakpoint_.address, place)
        if not place.breakpoints:
            del self._places[breakpoint_.address]
            # Nobody looks any more: what comes there when somebody does again is a new arrival.
            for index in [index for index, (at, _) in self._standing.items() if at == breakpoint_.address]:
                del self._standing[index]

    def _outside(self) -> None:
        if self._loop.in_guest:
            raise MachineError("breakpoints change from inside a handler: defer it")

    def _reached(self, vcpu: Vcpu, address: int) -> None:
        """Call the actions, once for each time that the vCPU comes here.

        Where the run is interrupted meanwhile, the instruction is not executed, and the engine will come here again
        when the vCPU goes on, perhaps after an interrupt that is taken here: the stack pointer tells that from
        another arrival.
        """
        here = (address, vcpu.rsp)
        if self._standing.pop(vcpu.index, None) == here:
            return
        place = self._places.get(address)
        # A copy, since an action may take breakpoints away.
        for breakpoint_ in tuple(place.breakpoints) if place else ():
            breakpoint_.action(vcpu)
        # Where the engine cannot stop inside blocks, the instruction is executed after all, and there is nothing to
        # skip.
        if self._loop.interrupted and vcpu.rip == address and self._slots[vcpu.index].engine.stops_within:
            self._standing[vcpu.index] = here

    def displace(self, vcpu: Vcpu, standing: Standing = None) -> Standing:
        """The vCPU is put elsewhere from outside: what comes is a new arrival, wherever it is.

        Args:
            vcpu: which.
            standing: what an earlier ``displace`` gave, when it is put back.

        Returns:
            Where it stood having been served, if it did.
        """
        before = self._standing.pop(vcpu.index, None)
        if standing is not None:
            self._standing[vcpu.index] = standing
        return before

    def save(self) -> dict[int, tuple[int, int]]:
        """Which vCPUs stand at a breakpoint that has been served, for a snapshot."""
        return dict(self._standing)

    def load(self, state: Mapping[int, tuple[int, int]]) -> None:
        """Go back to a saved state."""
        self._standing = dict(state)
