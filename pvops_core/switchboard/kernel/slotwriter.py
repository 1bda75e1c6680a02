"""Another function of the kernel's own in a slot of its table, as its own code could put it there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import SwitchError
from pvops_core.patching.poke import Poke
from pvops_core.switchboard.findings import Switch

if TYPE_CHECKING:
    from pvops_core.machine import Machine
    from pvops_core.ops import Slot
    from pvops_core.patching.poke import Poker
    from pvops_core.switchboard.kernel.kernelsites import KernelSites
    from pvops_core.switchboard.kernel.slots import SlotWatch
    from pvops_core.switchboard.kernel.table import OpTable


@attrs.frozen
class SlotWriter:
    """Writes slots of one kernel's table."""

    machine: Machine
    symbols: Mapping[str, int]
    poker: Poker
    table: OpTable
    slots: SlotWatch
    sites: KernelSites

    def write_slot(self, slot: Slot, what: str, by: str, *, hooked: bool) -> Switch:
        """Put a function into a slot; sites that are patched already call through the slot from then on.

        From inside a handler it is done when that has returned.

        Args:
            slot: the slot.
            what: ``kernel:SYMBOL``.
            by: who asks, for the history.
            hooked: a hook stands in the slot.

        Raises:
            SwitchError: the kernel has no such function, or the op a hook.
            PatchError: a site is held by somebody, or in use for too long; nothing is changed.
        """
        function = what.partition(":")[2]
        op, target, old = slot.op.name, self.symbols.get(function), self.table.target(slot)
        if hooked:
            raise SwitchError("has a hook; switch it to the kernel's own first", op=op, implementation=what)
        if target is None:
            raise SwitchError("the kernel has no such function", op=op, implementation=function)
        patched, machine = self.sites.patched(slot), self.machine

        def write() -> None:
            self.slots.look()
            calls = [Poke(at, code, self.sites.built(at, len(code))) for at, code in patched.items()]
            self.poker.transaction([self.table.poke(slot, old, target), *calls], by=f"switch of {op}")
            self.slots.accept()

        if machine.running:
            machine.defer(write)
        else:
            write()
        return Switch(op, self.table.name(old), function, by, machine.clock.ns, machine.behalf, len(patched))
