"""Xen as the built-in guest's platform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pvops_core.hookspecs import Platform
from pvops_xen.host import XenHost
from pvops_xen.livepatching import XenCallsIn
from pvops_xen.loader import load_builtin

if TYPE_CHECKING:
    from pvops_core.guests import GuestImage
    from pvops_core.machine import Machine
    from pvops_xen.hypervisor.builder import InitialTables


class XenPlatform(XenCallsIn, XenHost, Platform):
    """A Xen host whose domain runs the built-in guest. Options: those of the host."""

    def __init__(self, machine: Machine, guest: GuestImage, options: Mapping[str, str]) -> None:
        Platform.__init__(self, machine, guest, options)
        self.start_hypervisor(self.console.extend)
        self.initial_tables: InitialTables | None = None
        machine.attach(self)

    def build(self) -> None:
        """Load the guest, build its page tables and information pages, and put vCPU 0 at its entry."""
        load_builtin(self)
