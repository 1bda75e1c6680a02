"""Switching an op whose 10,000 sites are patched, on a machine with 8 vCPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import TYPE_CHECKING

from benchmarks import rig
from benchmarks.measure import Result, best
from pvops_core.backends import API, Backend
from pvops_core.hookspecs import hookimpl
from pvops_core.ops import LAYOUTS
from pvops_core.patching.altinstructions.alternatives import Padding
from pvops_core.patching.code.nops import NOPS, NopKind
from pvops_core.patching.patchdefault import patch_default
from pvops_core.patching.poke import Poker
from pvops_core.patching.sites import SiteRecord
from pvops_core.switchboard import Switchboard
from pvops_core.switchboard.builtin.alternatives import SiteAlternatives
from pvops_core.switchboard.builtin.gates import GateAllocator
from pvops_core.switchboard.builtin.siteindex import SiteIndex
from pvops_core.switchboard.builtin.text import SwitchableText
from pvops_core.switchboard.offeredops import BoundBackend

if TYPE_CHECKING:
    from pvops_core.machine import GuestFault, Machine, Vcpu
    from pvops_core.patching.context import PatchContext
    from pvops_core.switchboard import Implementation

    Target = Implementation | Callable[[Vcpu], int]

SITES, VCPUS, AIM_MS = 10_000, 8, 10.0
GATES, GATE_COUNT, TABLE, BOOT_TABLE, SITE_BASE = 0x20000, 1000, 0x30000, 0x31000, 0x40000
LENGTH = 6
OP = "save_fl"


class OneOp:
    """One op and the patcher of 6.1."""

    @hookimpl
    def save_fl(self, cpu: Vcpu) -> int:
        """The flags."""
        return cpu.rflags

    @hookimpl
    def patch(self, ctx: PatchContext, type: int, clobbers: int, insnbuf: bytearray, addr: int, len: int) -> int:
        """The kernel's default."""
        return patch_default(ctx, type, clobbers, insnbuf, addr, len)


def other(cpu: Vcpu) -> int:
    """What the op is switched to and back."""
    return cpu.rflags


def fault(_vcpu: Vcpu, error: GuestFault) -> None:
    """Nothing here faults."""
    raise error


def board(machine: Machine, sites: int = SITES) -> Switchboard:
    """A switchboard over a text of so many calls of one op."""
    layout = LAYOUTS["6.1-64"]
    number = layout.by_op(OP).type
    addresses = range(SITE_BASE, SITE_BASE + sites * LENGTH, LENGTH)
    for address in addresses:
        machine.memory.write(address, site(address))
    index = SiteIndex(layout, (SiteRecord(a, number, LENGTH, 0, ".text") for a in addresses), machine.memory.read)
    machine.gates.map(GATES, GATE_COUNT)
    nops = cache(NOPS[NopKind.MODERN_64])
    none = SiteAlternatives({}, Padding(nops, lambda code: [len(code)]))
    text = SwitchableText(layout, {"pv_ops": TABLE, "boot_ops": BOOT_TABLE}, index, none, nops, machine.memory.read)
    chain = [BoundBackend(Backend(name="benchmark", api=API), OneOp())]
    poker = Poker(machine, lambda page: page)
    return Switchboard(machine, text, chain, poker, GateAllocator(machine.gates, GATE_COUNT), fault)


def site(address: int) -> bytes:
    """``call *pv_ops+type*8(%rip)``."""
    slot = TABLE + 8 * LAYOUTS["6.1-64"].by_op(OP).type
    return b"\xff\x15" + (slot - (address + LENGTH)).to_bytes(4, "little", signed=True)


def run() -> Iterator[Result]:
    """The rows."""
    with rig.machine(vcpus=VCPUS) as machine:
        switchboard = board(machine)
        switchboard.install()
        switchboard.apply_paravirt()
        own = switchboard.implementation(OP)
        ways: dict[str, tuple[Target, Target]] = {
            "to a function": (other, own),
            "back to a backend's, whose hook patches": (own, other),
        }
        for way, (target, back) in ways.items():
            there = partial(switchboard.switch, OP, target, by="benchmark")
            seconds = best(there, before=partial(switchboard.switch, OP, back, by="benchmark"))
            yield Result(f"switch of an op with {SITES:,} sites, {VCPUS} vCPUs, {way}", seconds * 1e3, "ms", AIM_MS)
