"""The switchboard of a session whose guest is the built-in one: it serves every op from the first call on."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

from pvops_core.backends.fills import fills_of, forces_of
from pvops_core.guest.names import SymbolNames
from pvops_core.ops import LAYOUTS
from pvops_core.patching.altinstructions.alternatives import FEATURES, Padding
from pvops_core.patching.code.disasm import instruction_lengths
from pvops_core.session.boundops import bound_ops
from pvops_core.switchboard import Switchboard
from pvops_core.switchboard.builtin.alternatives import SiteAlternatives
from pvops_core.switchboard.builtin.gates import GateAllocator
from pvops_core.switchboard.builtin.siteindex import SiteIndex
from pvops_core.switchboard.builtin.text import SwitchableText

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.guests import BuiltinGuest
    from pvops_core.machine import GuestFault, Vcpu
    from pvops_core.session.session import Session


def make_switchboard(session: Session, guest: BuiltinGuest, backends: tuple[Backend, ...]) -> Switchboard:
    """Make the backends' ops for a session and connect them to its guest, which is not loaded yet.

    Raises:
        PluginError: the backends' ops do not fit their specifications, or could not be made.
    """
    machine = session.machine
    # Before ops are made, which may ask for gates.
    machine.gates.map(guest.gates_address, guest.gate_count)

    def fault(vcpu: Vcpu, fault: GuestFault) -> None:
        machine.exception(vcpu, fault.vector, fault.error_code, fault.address)

    return Switchboard(
        machine,
        text_of(guest),
        bound_ops(session, LAYOUTS[guest.layout], SymbolNames(guest.symbols), backends),
        session.poker,
        GateAllocator(machine.gates, guest.gate_count),
        fault,
        forced(guest, backends, len(machine.vcpus)),
    )


def text_of(guest: BuiltinGuest) -> SwitchableText:
    """What the switchboard knows of the guest's text."""
    # Nops are asked for one length at a time, thousands of times.
    layout, read, nops = LAYOUTS[guest.layout], guest.image.read, cache(guest.nops)
    padding = Padding(nops, partial(instruction_lengths, bits=guest.kind.bits))
    return SwitchableText(
        layout=layout,
        symbols=guest.symbols,
        sites=SiteIndex(layout, guest.sites, read),
        alternatives=SiteAlternatives.of(guest.alternatives, read, padding),
        nops=nops,
        built=read,
        symbol_at=guest.image.symbol_at,
    )


def forced(guest: BuiltinGuest, backends: tuple[Backend, ...], vcpus: int) -> frozenset[int]:
    """Numbers of the CPU features that the backends force on, or their kernel does."""
    names = forces_of(backends).union(*(fill.features(guest.image, vcpus) for fill in fills_of(backends)))
    return frozenset(FEATURES[name] for name in names)
