"""A platform made without a session."""

from __future__ import annotations

from types import SimpleNamespace

from pvops_lguest.host import builder
from pvops_lguest.platform import LguestPlatform

from pvops_core.machine import Machine, MachineKind

from .rig import BASE, CODE

GUEST = SimpleNamespace(
    kind=MachineKind.I386,
    boot_protocol="builtin",
    layout="2.6.24",
    image=None,
    symbols={},
    kernel_base=BASE,
    entry=BASE + CODE,
)


def platform(machine: Machine, **options: str) -> LguestPlatform:
    return LguestPlatform(machine, GUEST, builder.LguestSettings.read(options))  # type: ignore[arg-type]  # a stand-in
