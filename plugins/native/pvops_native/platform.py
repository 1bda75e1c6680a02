"""Bare metal for the built-in guest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pvops_core.errors import MachineError
from pvops_core.hookspecs import Platform
from pvops_native import processor
from pvops_native.loader import load
from pvops_native.pc import Pc

if TYPE_CHECKING:
    from pvops_core.guests import GuestImage
    from pvops_core.machine import Machine


class NativePlatform(Pc, Platform):
    """A PC with the built-in guest in its memory."""

    def __init__(self, machine: Machine, guest: GuestImage, options: Mapping[str, str]) -> None:
        Platform.__init__(self, machine, guest, options)
        self.fit_out(self.console.append)

    def build(self) -> None:
        """Load the guest, make its tables, start the first processor; the others wait to be started."""
        boot, *others = self.machine.vcpus
        loaded = load(self.machine, self.guest, self.features, self.options)
        processor.enter(boot, loaded.world, self.guest.entry)
        boot.set("rsi", loaded.boot_info)
        for vcpu in others:
            vcpu.halt()

    def _start(self, number: int) -> None:
        """Start a processor at the guest's entry for secondaries, in the world of the first."""
        if not 0 < number < len(self.machine.vcpus):
            return
        boot, vcpu = self.machine.vcpus[0], self.machine.vcpus[number]
        entry = self.guest.symbols.get("secondary_entry")
        if entry is None:
            raise MachineError("the guest has no symbol secondary_entry to start a processor at", vcpu=number)
        base, limit = boot.insn.sgdt()
        processor.enter(vcpu, processor.World(boot.cr3, base, limit, boot.cr4), entry)
        vcpu.wake()
