"""A domain that asks for events, by either interface."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.abi import (
    EvtchnOp,
)
from pvops_xen.hypervisor.events import fifo

from pvops_core.kinds import MachineKind

if TYPE_CHECKING:
    from conftest import Bench

ARGUMENT, CONTROL, ARRAY = 0x110, 0x320, 0x330
SELF, OWN, DOM0, NOBODY = 0x7FF0, 1, 0, 9


class Events:
    """A domain's calls, and its own side of the FIFO interface."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.hv = bench.platform.hv
        self.memory = self.hv.memory

    def op(self, command: int, *words: int) -> int:
        address = self.bench.write(ARGUMENT, struct.pack("<6I", *(*words, 0, 0, 0, 0, 0, 0)[:6]))
        return self.bench.call(32, command, address)

    def out(self, index: int) -> int:
        return self.bench.cpu.u32(self.bench.va(ARGUMENT) + 4 * index)

    def ipi(self, vcpu: int = 0) -> int:
        assert self.op(EvtchnOp.BIND_IPI, vcpu) == 0
        return self.out(1)

    def send(self, port: int) -> int:
        return self.op(EvtchnOp.SEND, port)

    def upcall(self, vcpu: int = 0) -> bool:
        """Take the upcall: whether it was pending."""
        info = self.hv.domain.vcpus[vcpu].info
        was = bool(self.memory.u8(info))
        self.memory.set_u8(info, 0)
        return was

    # the FIFO interface

    def init_control(self, vcpu: int = 0, offset: int = 64) -> int:
        mfn = self.bench.mfn(CONTROL + vcpu)
        return self.op(EvtchnOp.INIT_CONTROL, mfn, 0, offset, vcpu)

    def expand(self, index: int = 0) -> int:
        pfn = ARRAY + index
        self.bench.write(pfn, struct.pack("<1024I", *[fifo.MASKED] * 1024))
        return self.op(EvtchnOp.EXPAND_ARRAY, self.bench.mfn(pfn), 0)

    def word(self, port: int, value: int | None = None) -> int:
        address = (self.bench.mfn(ARRAY + port // 1024) << 12) + port % 1024 * 4
        if value is not None:
            self.memory.set_u32(address, value)
        return self.memory.u32(address)

    def take(self, vcpu: int = 0) -> list[int]:
        """What a guest does in its upcall: every queue that is ready, from its head on, the highest priority first."""
        control = (self.bench.mfn(CONTROL + vcpu) << 12) + 64
        taken = []
        if not self.upcall(vcpu):
            return []
        ready = self.memory.u32(control)
        self.memory.set_u32(control, 0)
        for priority in range(16):
            port = self.memory.u32(control + 8 + 4 * priority) if ready >> priority & 1 else 0
            while port:
                word = self.word(port)
                self.word(port, word & ~(fifo.LINKED | fifo.LINK_MASK | fifo.PENDING))
                if word & fifo.PENDING and not word & fifo.MASKED:
                    taken.append(port)
                port = word & fifo.LINK_MASK
            self.memory.set_u32(control + 8 + 4 * priority, 0)
        return taken


both = pytest.mark.parametrize("events", [MachineKind.X86_64, MachineKind.PAE], indirect=True, ids=["64", "pae"])
