"""Small 64-bit machines for benchmarks: code mapped one to one at level 0, no guest, no interrupts."""

from __future__ import annotations

import struct

from pvops_core.machine import BareMetal, Machine, MachineKind, Vcpu

TEXT, STACK, TABLES = 0x10000, 0x8000, 0x1000
PRESENT_WRITABLE, LARGE = 3, 0x83


class Quiet(BareMetal):
    """Bare metal whose run ends at hlt."""

    def halted(self, vcpu: Vcpu) -> None:
        """End the run."""
        vcpu.machine.stop("poweroff")


def machine(*, memory: int = 16 << 20, vcpus: int = 1) -> Machine:
    """A 64-bit machine at level 0 with its low memory mapped one to one in 2 MiB pages."""
    made = Machine(MachineKind.X86_64, memory=memory, vcpus=vcpus)
    made.attach(Quiet(made))
    made.memory.set_u64(TABLES, TABLES + 0x1000 | PRESENT_WRITABLE)
    made.memory.set_u64(TABLES + 0x1000, TABLES + 0x2000 | PRESENT_WRITABLE)
    for index in range(memory >> 21):
        made.memory.set_u64(TABLES + 0x2000 + 8 * index, index << 21 | LARGE)
    for vcpu in made.vcpus:
        # PAE, EFER.LME, the root, then paging: the order of the manual (SDM volume 3, 9.8.5).
        vcpu.insn.mov_to_cr(4, 0x20)
        vcpu.insn.wrmsr(0xC0000080, 0x100)
        vcpu.insn.mov_to_cr(3, TABLES)
        vcpu.insn.mov_to_cr(0, 0x80010033)
    return made


def start(of: Machine, code: bytes, at: int = TEXT) -> None:
    """Put code in place and every vCPU at its beginning."""
    of.memory.write(at, code)
    of.invalidate([(at, at + len(code))])
    for vcpu in of.vcpus:
        vcpu.wake()
        vcpu.rip = at
        vcpu.rsp = STACK - 0x100 * vcpu.index


def counted(body: bytes, rounds: int) -> bytes:
    """``mov ecx, rounds`` then ``body`` that often, then hlt; the body may change anything but rcx."""
    head = b"\xb9" + struct.pack("<I", rounds)
    tail = b"\xff\xc9\x0f\x85"  # dec ecx; jnz rel32
    return head + body + tail + struct.pack("<i", -(len(body) + len(tail) + 4)) + b"\xf4"
