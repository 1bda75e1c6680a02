"""Straight code with time slices and the virtual clock on, against the bare engine; a patched site too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import rig
from benchmarks.measure import Result, best
from pvops_core.machine.unicorn import engine as uc
from pvops_core.patching.poke import Poke, Poker

if TYPE_CHECKING:
    from pvops_core.machine import Machine

ROUNDS = 500_000
BODY = bytes.fromhex("480307 4831c3 48ffc0 48894708 4829d3 4801d0") * 16
"""96 instructions: add from memory, xor, inc, store, sub, add, sixteen times."""
CALL = bytes.fromhex("ff1500000000")
INLINED = bytes.fromhex("4889f8 0f1f00")
"""mov rax, rdi and three bytes of nop: what pgd_val is on bare metal."""


def bare(machine: Machine, code: bytes) -> float:
    """Seconds for the code on an engine with no callback at all."""
    engine = uc.Engine(64, machine.memory.address, machine.memory.size)
    with closing(engine):
        for name in ("cr4", "cr3", "cr0"):
            if name == "cr3":
                # EFER: LME and LMA (SDM volume 3, 2.2.1).
                engine.write_msr(0xC0000080, 0x500)
            engine.write(uc.REGISTER_IDS[name], machine.vcpus[0].get(name))
        engine.write(uc.REGISTER_IDS["rdi"], rig.STACK)
        machine.memory.write(rig.TEXT, code)
        return best(lambda: engine.start(rig.TEXT))


def repeated(machine: Machine) -> float:
    """Seconds for what the machine's text holds."""
    vcpu = machine.vcpus[0]

    def again() -> None:
        vcpu.rip = rig.TEXT

    return best(machine.run, before=again)


def sliced(machine: Machine, code: bytes) -> float:
    """Seconds for the code on the machine."""
    rig.start(machine, code)
    machine.vcpus[0].set("rdi", rig.STACK)
    return repeated(machine)


def patched(machine: Machine) -> float:
    """Seconds for code whose sites were poked into place while the machine stood."""
    rig.start(machine, rig.counted(CALL * 8, ROUNDS))
    sites = np.arange(8) * len(CALL) + rig.TEXT + 5
    Poker(machine, lambda page: page).transaction(
        [Poke(address, CALL, INLINED) for address in sites.tolist()], by="benchmark"
    )
    return repeated(machine)


def run() -> Iterator[Result]:
    """Two rows."""
    code = rig.counted(BODY, ROUNDS)
    with rig.machine() as machine:
        floor, seconds = bare(machine, code), sliced(machine, code)
        yield Result("straight code, slices and clock on", seconds * 1e3, "ms", 1.1, floor * 1e3, "bare engine")
    with rig.machine() as machine:
        placed, seconds = sliced(machine, rig.counted(INLINED * 8, ROUNDS)), patched(machine)
        yield Result("patched site", seconds * 1e3, "ms", 1.1, placed * 1e3, "the same bytes placed by hand")
