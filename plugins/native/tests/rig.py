"""A bare machine with native ops on it: paging on, flat segments, a scratch page, no guest."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import attrs

from pvops_core.hookspecs import Environment
from pvops_core.kinds import MachineKind
from pvops_core.machine import Machine, Vcpu
from pvops_core.ops import LAYOUTS, Layout
from pvops_native import processor
from pvops_native.ops import NativeOps
from pvops_native.platform import NativePlatform
from pvops_native.tables import PAGE, TableBuilder

BASE = {32: 0xC000_0000, 64: 0xFFFF_FFFF_8000_0000}
GDT, IDT, TSS, SCRATCH, STACK, CODE, TABLES = (n * PAGE for n in (1, 2, 3, 4, 6, 8, 16))
KIND_LAYOUTS = {MachineKind.I386: "2.6.23-lapic", MachineKind.PAE: "2.6.24-pae", MachineKind.X86_64: "6.1-64"}


@attrs.frozen
class FakeGuest:
    """What the platform's constructor may look at."""

    symbols: Mapping[str, int]


class Rig:
    """A machine of a layout's kind, its first vCPU at level 0 in a flat world."""

    def __init__(self, layout: str, *, vcpus: int = 1, memory: int = 2 << 20, **options: str) -> None:
        self.layout: Layout = LAYOUTS[layout]
        self.kind = self.layout.kind
        self.base = BASE[self.kind.bits]
        self.machine = Machine(self.kind, memory=memory, vcpus=vcpus)
        self.symbols: dict[str, int] = {}
        guest: Any = FakeGuest(self.symbols)
        self.platform = NativePlatform(self.machine, guest, options)
        self.machine.attach(self.platform)
        limit = processor.flat_gdt(self.machine.memory, GDT, self.kind.bits)
        self.root = TableBuilder(self.machine.memory, self.kind, TABLES // PAGE).build(memory // PAGE, self.base)
        world = processor.first_world(self.kind, self.root, self.base + GDT, max(limit, 0xFF))
        for vcpu in self.machine.vcpus:
            processor.enter(vcpu, world, self.base + CODE)
            vcpu.rsp = self.base + STACK + PAGE
        self.cpu: Vcpu = self.machine.vcpus[0]
        self.ops = NativeOps(
            Environment(
                machine=self.machine,
                layout=self.layout,
                platform=self.platform,
                symbols=self.symbols,
                switch=lambda op, implementation, by: None,
            )
        )

    def at(self, pa: int) -> int:
        """Kernel virtual address of a physical one."""
        return self.base + pa

    def run(self, code: bytes, *, max_ns: int = 1_000_000) -> str:
        """Runs code at level 0 until it stops; gives the reason."""
        self.machine.memory.write(CODE, code)
        self.cpu.rip = self.at(CODE)
        return self.machine.run(max_ns=max_ns).reason

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.machine.close()
