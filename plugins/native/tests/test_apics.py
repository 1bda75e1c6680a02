"""The APICs' registers in memory."""

from __future__ import annotations

import itertools
import struct

from linux_rig import MEMORY
from pvops_native.linux import loader
from pvops_native.platform import NativePlatform

from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.kinds import MachineKind
from pvops_core.machine import Machine
from pvops_core.testing.images import ElfBuilder


def test_ticks_come_in_time_to_a_loop_that_only_reads_memory() -> None:
    # IDT with one gate at vector 0x20; 8259 at 0x20; 8254 counter 0 periodic; sti; then a loop that reads memory.
    # The handler counts in rbx, acknowledges and returns.
    setup = (
        "b011 e620 b020 e621 b004 e621 b001 e621 b0fe e621"  # ICW1..ICW4, all masked but request 0
        "b034 e643 b09c e640 b02e e640"  # mode 2, 0x2e9c pulses: 9,999 us
        "31db 0f011c2500700000 fb"  # xor ebx, ebx; lidt [0x7000]; sti
        "8b042500000001 ebf7"  # mov eax, [0x1000000]; jmp back
    )
    code = bytes.fromhex(setup)
    handler = bytes.fromhex("ffc3 50 b020 e620 58 48cf")
    builder = ElfBuilder(64, 0x1000000)
    builder.text(".text", code)
    kernel = Kernel(load_image(builder.build()))
    with Machine(MachineKind.X86_64, memory=MEMORY, slice_blocks=1_000_000) as machine:
        built = NativePlatform(machine, kernel)
        machine.attach(built)
        built.build()
        machine.memory.write(0x7000, struct.pack("<HQ", 0xFFF, 0x7800))
        gate = struct.pack("<HHBBHII", 0x7100, loader.CODE, 0, 0x8E, 0, 0, 0)
        machine.memory.write(0x7800 + 16 * 0x20, gate)
        machine.memory.write(0x7100, handler)
        machine.vcpus[0].rsp = 0x7F00
        stop = machine.run(max_ns=200_000_000)
        assert stop.reason == "timeout"
        assert machine.vcpus[0].get("rbx") in {19, 20}
        times = [event.ns for event in machine.log.events if event.kind == "interrupt"]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert all(9_990_000 < gap < 10_010_000 for gap in gaps)
