"""A machine with an lguest host and a hand-made guest: a few instructions, no ops."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING

from pvops_lguest.host import builder
from pvops_lguest.host.abi import DONE, Call
from pvops_lguest.host.builder import LguestSettings
from pvops_lguest.platform import LguestPlatform

from pvops_core.machine import Machine, MachineKind, Vcpu

if TYPE_CHECKING:
    from pvops_lguest.host.state import HostState

BASE = 0xC0000000
CODE = 0x100000
DATA = 0x110000
STACK_TOP = 0x120000
RAM = 4 << 20


class Program:
    """Machine code put together instruction by instruction; addresses are guest-physical plus BASE."""

    def __init__(self, at: int = CODE) -> None:
        self.at = at
        self.code = bytearray()

    @property
    def here(self) -> int:
        return BASE + self.at + len(self.code)

    def raw(self, text: str) -> Program:
        self.code += bytes.fromhex(text)
        return self

    def op(self, opcode: int, *words: int) -> Program:
        size = (opcode.bit_length() + 7) // 8
        self.code += opcode.to_bytes(size, "big") + b"".join(struct.pack("<I", word & 0xFFFFFFFF) for word in words)
        return self

    def load(self, **registers: int) -> Program:
        codes = {"eax": 0xB8, "ecx": 0xB9, "edx": 0xBA, "ebx": 0xBB, "esp": 0xBC, "esi": 0xBE, "edi": 0xBF}
        for name, value in registers.items():
            self.op(codes[name], value)
        return self

    def int(self, vector: int) -> Program:
        self.code += bytes([0xCD, vector])
        return self

    def store(self, pa: int, value: int) -> Program:
        """mov dword [BASE + pa], value."""
        return self.op(0xC705, BASE + pa, value)

    def save_eax(self, pa: int) -> Program:
        """mov [BASE + pa], eax."""
        return self.op(0xA3, BASE + pa)

    def push(self, value: int) -> Program:
        return self.op(0x68, value)

    def hang(self) -> Program:
        return self.raw("ebfe")


class Host:
    """The machine, its platform, and shortcuts."""

    def __init__(self, abi: str, seed: int, options: Mapping[str, str], kind: MachineKind = MachineKind.I386) -> None:
        self.machine = Machine(kind, memory=LguestPlatform.machine_memory(RAM), seed=seed)
        image = SimpleNamespace(segments=(), read=lambda *_: b"")
        guest = SimpleNamespace(
            kind=kind,
            boot_protocol="builtin",
            layout=abi,
            image=image,
            symbols={"lguest_data": BASE + DATA},
            kernel_base=BASE,
            entry=BASE + CODE,
        )
        self.platform = LguestPlatform(self.machine, guest, LguestSettings.read({"abi": abi, **options}))
        self.machine.attach(self.platform)
        gpgdir, _ = builder.make_linear_tables(self.state.memory, 0x8000, BASE)
        self.gpgdir = gpgdir
        builder.enter_guest(self.vcpu, self.state, gpgdir, BASE + CODE, 0)
        self.vcpu.set("esp", BASE + STACK_TOP)
        layout = self.state.abi.data
        self.machine.memory.write(DATA + layout.hcall_status, bytes([DONE]) * 64)
        if layout.kernel_address is not None and layout.syscall_vec is not None:
            self.set(DATA + layout.kernel_address, BASE)
            self.set(DATA + layout.syscall_vec, 0x80)

    @property
    def state(self) -> HostState:
        return self.platform.state

    @property
    def vcpu(self) -> Vcpu:
        return self.machine.vcpus[0]

    @property
    def data(self) -> int:
        return DATA

    def get(self, pa: int) -> int:
        return self.machine.memory.u32(pa)

    def set(self, pa: int, value: int) -> None:
        self.machine.memory.set_u32(pa, value)

    def member(self, name: str) -> int:
        """Physical address of a member of struct lguest_data."""
        return DATA + getattr(self.state.abi.data, name)

    def call(self, call: Call, *args: int) -> int:
        return self.platform.hypercall(self.vcpu, self.platform.number(call), *args)

    def init(self) -> Host:
        self.call(Call.LGUEST_INIT, DATA)
        return self

    def gate(self, vector: int, handler: int, *, type: int = 0xE, dpl: int = 1) -> None:
        low = 0x61 << 16 | handler & 0xFFFF
        self.call(Call.LOAD_IDT_ENTRY, vector, low, handler & 0xFFFF0000 | 0x8000 | type << 8 | dpl << 13)

    def user_page(self, va: int, pa: int, flags: int = 7) -> None:
        """Map one page in the guest's own tables, below the kernel."""
        table = self.get(self.gpgdir + (va >> 22) * 4) & ~0xFFF or 0xA000
        self.set(self.gpgdir + (va >> 22) * 4, table | 7)
        self.set(table + (va >> 12 & 0x3FF) * 4, pa | flags)

    def segments(self) -> None:
        """Tell the host a GDT with kernel and user segments, written as careless kernels do: level 0, not accessed."""
        table = [(0, 0)] * 32
        table[12:16] = [(0xFFFF, 0xCF9A00), (0xFFFF, 0xCF9200), (0xFFFF, 0xCFFA00), (0xFFFF, 0xCFF200)]
        self.machine.memory.write(0x150000, b"".join(struct.pack("<II", *entry) for entry in table))
        self.call(Call.LOAD_GDT, 0x150000, 32)

    def to_user(self, program: Program, eip: int, esp: int) -> Program:
        """The instructions that leave for ring 3."""
        program.push(0x7B).push(esp).push(0x202).push(0x73).push(eip)
        return program.raw("cf")

    def program(self, program: Program) -> Host:
        self.machine.memory.write(program.at, bytes(program.code))
        return self

    def ends(self, ns: int = 5_000_000) -> tuple[str, str]:
        stop = self.machine.run(max_ns=ns)
        return stop.reason, stop.detail

    def call_code(self, program: Program, call: Call, *args: int) -> Program:
        """The instructions of a hypercall in this ABI."""
        registers = dict(zip(self.state.abi.registers, args, strict=False))
        return program.load(eax=self.platform.number(call), **registers).int(0x1F)
