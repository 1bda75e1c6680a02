"""The ops of an lguest guest on a host without a guest kernel: called as the switchboard calls them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from pvops_lguest.ops import LguestOps

from pvops_core.backends import Environment
from pvops_core.ops import LAYOUTS

from .rig import BASE, DATA, Host

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu

SYMBOLS = {
    "lguest_data": BASE + DATA,
    "thread_sp0_offset": 24,
    "thread_tls_array_offset": 0,
    "mm_pgd_offset": 4,
    "e820": BASE + 0x145000,
}


class OpsHost:
    """A host and the ops that call it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        environment = Environment(
            machine=host.machine,
            layout=LAYOUTS["2.6.24"],
            platform=host.platform,
            symbols=SYMBOLS,
            switch=SimpleNamespace(),  # type: ignore[arg-type]  # lguest's ops never switch
        )
        self.ops = LguestOps(environment)

    @property
    def vcpu(self) -> Vcpu:
        return self.host.vcpu

    def calls(self) -> list[tuple[object, ...]]:
        """The hypercalls so far: name and arguments."""
        names = [f"arg{n}" for n in range(1, self.host.state.abi.arguments + 1)]
        logged = [dict(event.fields) for event in self.host.machine.log.events if event.kind == "hypercall"]
        return [(call["name"], *(call[name] for name in names)) for call in logged]
