"""A guest → Python hook with two arguments and a result → guest, through the switchboard's own handler."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

from benchmarks import rig
from benchmarks.measure import NANO, Result, best
from pvops_core.machine import Batch, GuestFault, Machine, Vcpu
from pvops_core.machine.unicorn import engine as uc
from pvops_core.ops import LAYOUTS, signature
from pvops_core.switchboard import dispatch
from pvops_core.switchboard.hookfaults import HookFaults
from pvops_core.switchboard.implementation import of_callable

GATES = 0x20000
CALLS = 20_000


def call(target: int, at: int) -> bytes:
    """``call target``."""
    return b"\xe8" + struct.pack("<i", target - (at + 5))


def code() -> bytes:
    """Call the first gate CALLS times."""
    return rig.counted(call(GATES, rig.TEXT + 5), CALLS)


def fault(_vcpu: Vcpu, error: GuestFault) -> None:
    """No hook here faults."""
    raise error


def hook_call(machine: Machine) -> float:
    """Seconds a call of an op with two arguments and a result."""
    layout = LAYOUTS["6.1-64"]
    slot = layout.by_op("ptep_modify_prot_start")

    def implementation(_cpu: Vcpu, vma: int, addr: int) -> int:
        return vma ^ addr

    served = dispatch.handler(
        machine, signature(slot, layout.kind), of_callable(slot.op.name, implementation), Counter(), HookFaults(fault)
    )
    machine.gates.map(GATES, 4)
    machine.memory.write(GATES, machine.gates.text)
    machine.gates.bind(0, served)
    return best(machine.run, before=lambda: rig.start(machine, code())) / CALLS


def floor(machine: Machine) -> float:
    """Seconds a call of the least callback that could do it: one batch read, one register write."""
    memory, engine = machine.memory, uc.Engine(64, machine.memory.address, machine.memory.size)
    with closing(engine):
        registers = machine.vcpus[0].batch("cr0", "cr3", "cr4").read()
        engine.write(uc.REGISTER_IDS["cr4"], registers[2])
        # EFER: LME and LMA (SDM volume 3, 2.2.1).
        engine.write_msr(0xC0000080, 0x500)
        engine.write(uc.REGISTER_IDS["cr3"], registers[1])
        engine.write(uc.REGISTER_IDS["cr0"], registers[0])
        read = Batch(engine, [uc.REGISTER_IDS["rdi"], uc.REGISTER_IDS["rsi"]]).read
        write = Batch(engine, [uc.REGISTER_IDS["rax"]]).write

        def callback(_engine: int, _address: int, _size: int, _data: int) -> None:
            first, second = read()
            write(first ^ second)

        engine.hook(uc.HOOK_CODE, uc.CODE_CALLBACK(callback), GATES, GATES)
        memory.write(GATES, b"\xc3")
        memory.write(rig.TEXT, code())
        engine.write(uc.REGISTER_IDS["rsp"], rig.STACK)
        return best(lambda: engine.start(rig.TEXT)) / CALLS


def run() -> Iterator[Result]:
    """The row."""
    with rig.machine() as machine:
        least = floor(machine)
    with rig.machine() as machine:
        yield Result(
            "hook call, two arguments and a result",
            hook_call(machine) * NANO,
            "ns",
            2.5,
            least * NANO,
            "bare callback, batch read, batch write",
        )
