"""Gates that stand anywhere in guest text, one by one: how a kernel that has no room for gates reaches Python.

A gate of this kind is a jump to a return behind it. Executing it calls the handler, and the guest returns to its caller
without another callback, unless the handler moved RIP. They belong to the machine and not to its snapshots, as
breakpoints do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.machine.exits.addresses import GateHook
    from pvops_core.machine.exits.cpuslot import CpuSlot
    from pvops_core.machine.handler import GateHandler
    from pvops_core.machine.run.runloop import RunLoop

NEAR: Final = 64
"""Gates no further apart share a hook of the engine, which goes through all of them at each instruction translated."""


class SingleGates:
    """The gates of one machine that stand alone."""

    def __init__(self, loop: RunLoop, slots: list[CpuSlot]) -> None:
        self._loop = loop
        self._slots = slots
        self._gates: dict[int, tuple[GateHandler, int]] = {}
        self._stretches: dict[tuple[int, int], list[GateHook]] = {}

    def open(self, gates: Mapping[int, tuple[GateHandler, int]]) -> None:
        """Call handlers from now on.

        Args:
            gates: handler by guest-virtual address of the gate's jump, with the address of the return that it leads to.

        Raises:
            MachineError: a handler is running; defer it.
        """
        self._outside()
        self._gates |= gates
        self._hook()

    def close(self, *addresses: int) -> None:
        """Call these no more; MachineError from inside a handler."""
        self._outside()
        for address in addresses:
            self._gates.pop(address, None)
        self._hook()

    def _outside(self) -> None:
        if self._loop.in_guest:
            raise MachineError("gates change from inside a handler: defer it")

    def _hook(self) -> None:
        wanted = set(_stretches(sorted(self._gates)))
        # Hooks come and go by stretches that changed: each new one drops all translated code.
        for stretch in self._stretches.keys() - wanted:
            for slot, hook in zip(self._slots, self._stretches.pop(stretch), strict=True):
                slot.addresses.unhook_gates(hook)
        for first, last in sorted(wanted - self._stretches.keys()):
            hooks = [slot.addresses.hook_gates_alone(first, last, self._gates) for slot in self._slots]
            self._stretches[first, last] = hooks


def _stretches(addresses: list[int]) -> list[tuple[int, int]]:
    """First and last address of gates that are near to each other."""
    found: list[tuple[int, int]] = []
    for address in addresses:
        if found and address - found[-1][1] <= NEAR:
            found[-1] = found[-1][0], address
        else:
            found.append((address, address))
    return found
