"""What an author's platform leaves out when it overrides a method and does not call its base's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.backends.blame import of_source
from pvops_core.errors import MachineError
from pvops_core.machine import GuestFault

if TYPE_CHECKING:
    from pvops_core.backends.finding.found import Found
    from pvops_core.backends.platform import Platform
    from pvops_core.machine import Machine

_OF_ITS_BASE: Final = ("machine", "guest", "settings", "keyboard", "observers")
_LOOKED_AT: Final = 16
"""Bytes of code: a guest begins nowhere with as many zeros."""


def check_made(platform: Platform, source: Found | None) -> None:
    """Whether a platform has what its base gives it.

    Raises:
        HookError: it has not.
    """
    name = type(platform).__qualname__
    for attribute in _OF_ITS_BASE:
        if not hasattr(platform, attribute):
            advice = "call super().__init__(machine, guest, settings) in it"
            raise of_source(source, f"{name}.__init__ left the platform without its {attribute}: {advice}")


def check_built(platform: Platform, source: Found | None) -> None:
    """Whether there is a guest: where the first vCPU stands, or where its image says.

    Raises:
        HookError: there is none.
    """
    vcpu = platform.machine.vcpus[0]
    try:
        # Code at the entry: then somebody has loaded a guest, in whatever way.
        if any(vcpu.virtual.read(vcpu.rip, _LOOKED_AT, system=True)):
            return
    except GuestFault:
        return  # paging is on, which somebody has set up: a host with shadow tables fills them on demand
    except MachineError:
        pass
    # A platform may begin somewhere else, in real mode, say.
    if not any(_is_there(platform.machine, segment.physical) for segment in platform.guest.image.segments):
        advice = "call super().build() in it, or load the guest there"
        left = f"left no guest: there is no code at {vcpu.rip:#x}, where vcpu 0 is to begin"
        raise of_source(source, f"{type(platform).__qualname__}.build {left}; {advice}")


def _is_there(machine: Machine, address: int) -> bool:
    try:
        return any(machine.memory.read(address, _LOOKED_AT))
    except MachineError:
        return False
