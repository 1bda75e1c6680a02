"""A rig for machine tests: descriptor tables, page tables and a place for hand-assembled code, for every kind."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from pvops_core.machine import BareMetal, Machine, MachineKind, Vcpu
from pvops_core.testing.assembly import assemble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GDT, IDT, TSS, HANDLERS, CODE, TABLES = 0x1000, 0x2000, 0x4000, 0x8000, 0x10000, 0x80000
USER_CODE, DATA, GATES = 0x18000, 0x30000, 0x50000
STACK, RING0_STACK, IST_STACK, USER_STACK, RING1_STACK = 0x20000, 0x22000, 0x24000, 0x26000, 0x28000
KCS, KSS, USS, UCS, R1CS, R1SS, TR = 0x08, 0x10, 0x1B, 0x23, 0x29, 0x31, 0x38
P, W, U, NX = 1, 2, 4, 1 << 63
GATE, TRAP = 0xE, 0xF


class Recorder(BareMetal):
    """Bare metal that remembers what trapped and ends the run at hlt."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.seen: list[tuple[int, int | None, int | None, int]] = []
        self.on_exception: Callable[[Vcpu, int], bool] | None = None

    def exception(self, vcpu: Vcpu, vector: int, error_code: int | None, address: int | None) -> None:
        self.seen.append((vector, error_code, address, vcpu.rip))
        if self.on_exception is None or not self.on_exception(vcpu, vector):
            super().exception(vcpu, vector, error_code, address)

    def halted(self, vcpu: Vcpu) -> None:
        vcpu.halt()
        if all(other.halted for other in self.machine.vcpus):
            self.machine.stop("poweroff")


class Rig:
    """One machine with tables at fixed places, the low 640 KiB mapped one to one for everybody."""

    def __init__(self, kind: MachineKind, **options: int) -> None:
        self.kind = kind
        self.machine = Machine(kind, memory=4 << 20, **options)
        self.memory = self.machine.memory
        self.platform = Recorder(self.machine)
        self.machine.attach(self.platform)
        self.long = kind is MachineKind.X86_64
        self.size = kind.pointer_size
        self._next = TABLES
        self.root = self._table()
        for page in range(0, TABLES + 0x20000, 0x1000):
            self.map(page, page, P | W | U)
        self._descriptors()
        for vcpu in self.machine.vcpus:
            self._start(vcpu)
        self.cpu = self.machine.vcpus[0]

    def _table(self) -> int:
        self._next += 0x1000
        return self._next

    def map(self, va: int, pa: int, flags: int) -> int:
        """Map a page; gives the physical address of its last-level entry."""
        if self.kind is MachineKind.I386:
            levels, size, bits = (22, 12), 4, 10
        else:
            levels, size, bits = ((39, 30, 21, 12) if self.long else (30, 21, 12)), 8, 9
        table = self.root
        write = self.memory.set_u32 if size == 4 else self.memory.set_u64
        read = self.memory.u32 if size == 4 else self.memory.u64
        for shift in levels:
            at = table + (va >> shift & (1 << bits) - 1) * size
            if shift == 12:
                write(at, pa | flags)
                return at
            if not read(at) & P:
                write(at, self._table() | (P if shift == 30 and not self.long else P | W | U))
            table = read(at) & 0xFFFFFF000
        raise AssertionError

    def _descriptors(self) -> None:
        code = 0xAF if self.long else 0xCF
        raw = [0]
        for kind, size, dpl in (
            (0x9A, code, 0),
            (0x92, 0xCF, 0),
            (0x92, 0xCF, 3),
            (0x9A, code, 3),
            (0x9A, code, 1),
            (0x92, 0xCF, 1),
        ):
            raw.append(size << 48 | (kind | dpl << 5) << 40 | 0xF << 48 | 0xFFFF)
        raw.append(0x0000890000000067 | (TSS & 0xFFFFFF) << 16)
        raw.append(0)
        struct.pack_into(f"<{len(raw)}Q", buffer := bytearray(len(raw) * 8), 0, *raw)
        self.memory.write(GDT, buffer)
        if self.long:
            self.memory.set_u64(TSS + 4, RING0_STACK)
            self.memory.set_u64(TSS + 0x24, IST_STACK)
        else:
            self.memory.set_u32(TSS + 4, RING0_STACK)
            self.memory.set_u32(TSS + 8, KSS)
            self.memory.set_u32(TSS + 12, RING1_STACK)
            self.memory.set_u32(TSS + 16, R1SS)
        self.memory.set_u16(TSS + 0x66, 0x68)

    def _start(self, vcpu: Vcpu) -> None:
        if self.kind is not MachineKind.I386:
            vcpu.insn.mov_to_cr(4, 0x220)
            vcpu.insn.wrmsr(0xC0000080, 0x800 | (0x101 if self.long else 0))
        vcpu.insn.mov_to_cr(3, self.root)
        vcpu.insn.mov_to_cr(0, 0x80010033)
        vcpu.insn.lgdt(GDT, 0x47)
        vcpu.insn.lidt(IDT, 0xFFF)
        vcpu.set_segments(0, KCS, KSS)
        for name in ("ds", "es"):
            vcpu.load_segment(name, USS)
        if vcpu.index == 0:
            vcpu.insn.ltr(TR)
        vcpu.rip = CODE
        vcpu.rsp = STACK - vcpu.index * 0x400

    def gate(
        self, vector: int, target: int, *, kind: int = GATE, dpl: int = 0, ist: int = 0, cs: int = KCS, present: int = 1
    ) -> None:
        flags = present << 7 | dpl << 5 | kind
        low = target & 0xFFFF | cs << 16 | ist << 32 | flags << 40 | (target >> 16 & 0xFFFF) << 48
        if self.long:
            self.memory.write(IDT + vector * 16, struct.pack("<QQ", low, target >> 32))
        else:
            self.memory.set_u64(IDT + vector * 8, low)

    def code(self, code: str | bytes, at: int = CODE) -> int:
        """Put code somewhere; gives the address after it."""
        data = bytes.fromhex(code) if isinstance(code, str) else code
        self.memory.write(at, data)
        self.machine.invalidate([(at, at + len(data))])
        return at + len(data)

    def code_for_each(self, code: str) -> None:
        """The same code for all vCPUs, each with a word of its own at edi."""
        self.code(code)
        for vcpu in self.machine.vcpus:
            vcpu.set("rdi", DATA + 4 * vcpu.index)

    def run(self, max_ns: int = 10_000_000) -> str:
        return self.machine.run(max_ns=max_ns).reason

    def frame(self, vcpu: Vcpu | None = None, count: int = 5) -> list[int]:
        """Words on the stack."""
        cpu = vcpu or self.cpu
        return [cpu.virtual.number(cpu.rsp + index * self.size, self.size, system=True) for index in range(count)]

    def user(self, at: int = USER_CODE) -> None:
        """Make the kernel's code enter level 3 at an address by iret; interrupts stay off."""
        self.iret_to(at, UCS, USER_STACK, USS)

    def iret_to(self, at: int, cs: int, stack: int, ss: int, flags: int = 2) -> None:
        words = (at, cs, flags, stack, ss)
        self.cpu.rsp = STACK - len(words) * self.size
        for index, word in enumerate(words):
            self.cpu.virtual.set_number(self.cpu.rsp + index * self.size, self.size, word)
        self.code("48cf" if self.long else "cf")


def call_a_gate(rig: Rig, kind: MachineKind) -> list[int]:
    """Make the code a call of a gate at GATES and the end; gives who has called it."""
    called: list[int] = []
    rig.machine.gates.map(GATES, 1)
    rig.memory.write(GATES, rig.machine.gates.text)
    rig.machine.gates.bind(0, lambda vcpu: called.append(vcpu.index))
    rig.code(assemble(f"mov eax, {GATES}; call {'rax' if rig.long else 'eax'}; nop; hlt", kind.bits, CODE))
    return called


@pytest.fixture(params=list(MachineKind), ids=lambda kind: kind.value)
def kind(request: pytest.FixtureRequest) -> MachineKind:
    value: MachineKind = request.param
    return value


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(kind: MachineKind, **options: int) -> Rig:
        made.append(Rig(kind, **options))
        return made[-1]

    yield make
    for rig in made:
        rig.machine.close()


@pytest.fixture
def rig(kind: MachineKind, make_rig: Callable[..., Rig]) -> Rig:
    return make_rig(kind)


@pytest.fixture(scope="session")
def rigs() -> Callable[..., Rig]:
    """A maker for tests that make and close their own rigs."""
    return Rig
