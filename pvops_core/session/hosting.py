"""Which backend of a chain hosts a guest, and on which machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.errors import UsageError
from pvops_core.guests import BuiltinGuest, Kernel

if TYPE_CHECKING:
    from pvops_core.backends import Backend, Platform
    from pvops_core.kinds import MachineKind

_WHAT = {BuiltinGuest.boot_protocol: "the built-in guest", Kernel.boot_protocol: "kernel images"}


def platform_for(boot_protocol: str, kind: MachineKind, backends: tuple[Backend, ...]) -> type[Platform]:
    """Who hosts guests of a boot protocol and a kind of machine; UsageError as for :func:`hosted`."""
    return hosted(boot_protocol, (kind,), backends)[0]


def hosted(
    boot_protocol: str, kinds: tuple[MachineKind, ...], backends: tuple[Backend, ...]
) -> tuple[type[Platform], MachineKind]:
    """Who hosts guests of a boot protocol, and on which of the machines that will do for the guest.

    It is the first backend of a chain that has a platform.

    Args:
        boot_protocol: the guest's.
        kinds: the machines, the best first.
        backends: the chain.

    Raises:
        UsageError: none has, or that one does not host such guests, or is no such machine.
    """
    found = ((each, each.platform_for(boot_protocol)) for each in backends)
    owner, platform = next((one for one in found if one[1] is not None), (backends[0], None))
    if platform is None:
        raise UsageError(f"backend {backends[0].name} has no platform, and neither have those it is based on")
    if boot_protocol not in platform.loaders:
        raise UsageError(f"backend {backends[0].name!r} cannot boot {_WHAT.get(boot_protocol, boot_protocol)}")
    # A platform may host more with one protocol than with others.
    more = platform.more_kinds.get(boot_protocol, frozenset())
    # The guest's best machine that the backend can be.
    kind = next((kind for there in (owner.kinds, more) for kind in kinds if kind in there), None)
    if kind is None:
        there = ", ".join(sorted(kind.value for kind in owner.kinds | more))
        raise UsageError(f"backend {owner.name!r} is no {kinds[0].value} machine; it can be {there}")
    return platform, kind
