"""A bare machine with native ops on it: paging on, flat segments, a scratch page, no guest."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self

import attrs
from pvops_native import backend, processor
from pvops_native.loader import start_secondary
from pvops_native.ops import NativeOps
from pvops_native.patchlets import patchlets_of
from pvops_native.pc import PcSettings
from pvops_native.platform import NativePlatform
from pvops_native.tables import TableBuilder

from pvops_core.backends import Environment
from pvops_core.kinds import MachineKind
from pvops_core.machine import GuestFault, Machine, Vcpu
from pvops_core.ops import LAYOUTS, Layout
from pvops_core.patching.code.nops import NOPS, NopKind
from pvops_core.patching.poke import Poker
from pvops_core.switchboard import Switchboard
from pvops_core.switchboard.builtin.alternatives import SiteAlternatives
from pvops_core.switchboard.builtin.gates import GateAllocator
from pvops_core.switchboard.builtin.siteindex import SiteIndex
from pvops_core.switchboard.builtin.text import SwitchableText
from pvops_core.switchboard.offeredops import BoundBackend
from pvops_core.testing.equivalence import Bench
from pvops_core.x86 import PAGE

BASE = {32: 0xC000_0000, 64: 0xFFFF_FFFF_8000_0000}
GDT, IDT, TSS, SCRATCH, STACK, CODE, GATES, TABLE, TABLES = (n * PAGE for n in (1, 2, 3, 4, 6, 8, 9, 12, 32))
GATE_COUNT = 500
USER = 0x40_0000
"""Virtual address of two pages that user mode may use: text, then stack."""
KIND_LAYOUTS = {MachineKind.I386: "2.6.23-lapic", MachineKind.PAE: "2.6.24-pae", MachineKind.X86_64: "6.1-64"}


@attrs.frozen
class FakeGuest:
    """What the platform's constructor may look at."""

    symbols: Mapping[str, int]


def _no_switch(op: str, implementation: object, by: str) -> None:
    raise AssertionError(f"{by} switches {op} to {implementation}")


class Rig:
    """A machine of a layout's kind, its first vCPU at level 0 in a flat world."""

    def __init__(self, layout: str, *, vcpus: int = 1, memory: int = 2 << 20, **options: str) -> None:
        self.layout: Layout = LAYOUTS[layout]
        self.kind = self.layout.kind
        self.base = BASE[self.kind.bits]
        self.machine = Machine(self.kind, memory=memory, vcpus=vcpus)
        self.symbols: dict[str, int] = {
            "gdt_pages": self.base + GDT,
            "tss_pages": self.base + TSS,
            "thread_tls_array_offset": 0,
            "gather_nr_offset": self.kind.pointer_size,
            "gather_tables_offset": 2 * self.kind.pointer_size,
        }
        guest: Any = FakeGuest(self.symbols)
        self.platform = NativePlatform(self.machine, guest, PcSettings.read(options))
        self.platform.starter = partial(start_secondary, self.machine, guest)
        self.machine.attach(self.platform)
        limit = processor.flat_gdt(self.machine.memory, GDT, self.kind.bits)
        self.root = TableBuilder(self.machine.memory, self.kind, TABLES // PAGE).build(memory // PAGE, self.base)
        self._user_pages()
        state = processor.first_state(self.kind, self.root, self.base + GDT, max(limit, 0xFF))
        for vcpu in self.machine.vcpus:
            processor.enter(vcpu, state, self.base + CODE)
            vcpu.rsp = self.base + STACK + PAGE
        self.cpu: Vcpu = self.machine.vcpus[0]
        self.ops = NativeOps(
            Environment(
                machine=self.machine,
                layout=self.layout,
                platform=self.platform,
                symbols=self.symbols,
                switch=_no_switch,
            )
        )

    def at(self, pa: int) -> int:
        """Kernel virtual address of a physical one."""
        return self.base + pa

    def _user_pages(self) -> None:
        """On 32 bits, user mode's segments and two pages of it."""
        if self.kind.bits == 64:
            return
        memory = self.machine.memory
        memory.set_u64(GDT + 0x70, 0x00CF_FB00_0000_FFFF)
        memory.set_u64(GDT + 0x78, 0x00CF_F300_0000_FFFF)
        leaf, flags = memory.size // 2, 7
        if self.kind is MachineKind.I386:
            memory.set_u32(self.root + 4, leaf | flags)
        else:
            memory.set_u64((memory.u64(self.root) & ~0xFFF) + 16, leaf | flags)
        for number in range(2):
            entry, size = leaf + PAGE + number * PAGE | flags, self.kind.entry_size
            memory.write(leaf + number * size, entry.to_bytes(size, "little"))
        memory.write(leaf + PAGE, b"\x0f\x0b")

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


def bench(rig: Rig) -> Bench:
    """A bench for equivalence tests: native ops behind a table in the rig's memory."""
    rig.machine.gates.map(rig.at(GATES), GATE_COUNT)
    for slot in (*rig.layout.slots, *rig.layout.boot_hooks):
        rig.symbols.setdefault(slot.symbol, rig.at(TABLE) + 0x400 * len(rig.symbols))
    nops = NOPS[NopKind.GENERIC if rig.kind.bits == 32 else NopKind.MODERN_64]
    text = SwitchableText(
        layout=rig.layout,
        symbols=rig.symbols,
        sites=SiteIndex(rig.layout, (), lambda _va, _length: b""),
        alternatives=SiteAlternatives({}, nops),
        nops=nops,
        built=lambda _va, length: bytes(length),
    )
    poker = Poker(rig.machine, lambda va: va - rig.base)

    def fault(vcpu: Vcpu, fault: GuestFault) -> None:
        rig.platform.exception(vcpu, fault.vector, fault.error_code, fault.address)

    board = Switchboard(
        rig.machine, text, [BoundBackend(backend, rig.ops)], poker, GateAllocator(rig.machine.gates, GATE_COUNT), fault
    )
    board.install()
    return Bench(
        machine=rig.machine,
        layout=rig.layout,
        symbols=rig.symbols,
        patchlets=patchlets_of(rig.layout),
        poker=poker,
        translate=lambda va: va - rig.base,
        text=rig.at(CODE),
        scratch=rig.at(SCRATCH),
        user=USER if rig.kind.bits == 32 else 0,
    )
