"""A kernel whose text is watched."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import attrs
from pvops_native.textwatch import TextWatch

from pvops_core.machine import MachineKind
from pvops_core.machine.cpu.faults import PageFault
from pvops_core.machine.memory import PhysicalMemory

BASE, PLACE, SIZE = 0xFFFFFFFF81000040, 0x10040, 0x9000


@attrs.define
class InKernel:
    """A processor in the kernel's address space, or in none."""

    cr3: int
    there: bool = True

    def walk(self, va: int, *, fetch: bool) -> None:
        assert fetch
        if not self.there:
            raise PageFault(f"page fault at {va:#x}", error_code=0, address=va)


@attrs.define
class Watched:
    """A kernel's text in memory, and what the machine is told."""

    memory: PhysicalMemory = attrs.field(factory=lambda: PhysicalMemory(1 << 20))
    vcpus: list[InKernel] = attrs.field(factory=list)
    told: list[list[tuple[int, int]]] = attrs.field(factory=list)

    def watch(self) -> TextWatch:
        segment = SimpleNamespace(address=BASE, physical=PLACE, memory_size=SIZE)
        section = SimpleNamespace(address=BASE, size=SIZE, executable=True)
        image: Any = SimpleNamespace(sections=[section], segments=[segment])
        kind = MachineKind.X86_64
        machine: Any = SimpleNamespace(memory=self.memory, kind=kind, vcpus=self.vcpus, invalidate=self.told.append)
        return TextWatch(machine, image)

    def change(self, *offsets: int) -> None:
        for offset in offsets:
            self.memory.set_u8(PLACE + offset, self.memory.u8(PLACE + offset) + 1)
