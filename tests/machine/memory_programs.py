"""Small random programs of loads, stores, pushes, string moves and calls, near the ends of pages of all kinds."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Final

import attrs

from pvops_core.machine import MachineKind
from tests.machine.memory_model import (
    AX,
    BP,
    BX,
    CX,
    DF,
    DI,
    DX,
    PAGE,
    SI,
    SP,
    UD,
    ZF,
    Fault,
    Model,
    OffTheMapError,
    Page,
    Step,
    World,
    place,
)
from tests.machine.memory_words import all_registers, enter

TEXT, DATA, STACK = 0x400000, 0x500000, 0x600000
PAGES: Final = 4
FRAMES: Final = 0x200
"""Number of the first frame; the pages of text come first, then data, then stack."""
NAMES: Final = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
_BASES: Final = (BX, SI, DI, BP, SP)
_UD2: Final = b"\x0f\x0b"
Encoded = tuple[bytes, Step]


@attrs.frozen
class Program:
    """One program.

    Attributes:
        kind: of machine.
        world: its pages and mode.
        code: address -> bytes, and what they do.
        contents: of all frames, by number.
        registers: AX to DI at first.
        flags: RFLAGS at first.
        start: first address.
    """

    kind: MachineKind
    world: World
    code: dict[int, Encoded]
    contents: dict[int, bytes]
    registers: list[int]
    flags: int
    start: int


class Writer:
    """Writes one program from a seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.kind = self.chance.choice(list(MachineKind))
        self.bits = self.kind.bits
        self.word = self.bits // 8
        self.sizes = (1, 2, 4, 8) if self.bits == 64 else (1, 2, 4)
        self.code: dict[int, Encoded] = {}
        self.starts: list[int] = []

    def program(self) -> Program:
        chance = self.chance
        user = chance.random() < 0.6
        nx = self.kind is not MachineKind.I386
        pages = {}
        for area, base in enumerate((TEXT, DATA, STACK)):
            for index in range(PAGES):
                page = self._page(FRAMES + area * PAGES + index, nx=nx)
                if page is not None:
                    pages[base // PAGE + index] = page
        world = World(self.bits, nx, user, chance.random() < 0.7, pages)
        self.starts = sorted(TEXT + PAGE * chance.randrange(1, PAGES) - chance.randrange(1, 40) for _ in range(2))
        if self.starts[1] - self.starts[0] < 80:
            del self.starts[1]
        for start in self.starts:
            self._stream(start)
        contents = {frame: bytes(chance.randbytes(PAGE)) for frame in range(FRAMES, FRAMES + 3 * PAGES)}
        self._put(contents)
        registers = [chance.getrandbits(self.bits) for _ in range(8)]
        for number in (BX, SI, DI, BP):
            registers[number] = self.near(DATA if number != BP else chance.choice((DATA, STACK)))
        registers[SP] = self.near(STACK)
        registers[CX] = chance.randrange(12)
        if self.bits == 64 and chance.random() < 0.15:
            registers[chance.choice(_BASES)] = self._bad()
        flags = 2 | (DF if chance.random() < 0.3 else 0)
        return Program(self.kind, world, self.code, contents, registers, flags, self.starts[0])

    def _page(self, frame: int, *, nx: bool) -> Page | None:
        what = self.chance.choices(("fine", "missing", "read-only", "nx", "supervisor"), (10, 3, 2, 2, 2))[0]
        if what == "missing":
            return None
        return Page(frame, what != "read-only", what != "supervisor", no_execute=nx and what == "nx")

    def near(self, base: int) -> int:
        """An address near a border between pages."""
        return base + PAGE * self.chance.randrange(1, PAGES) + self.chance.randrange(-24, 24)

    def _bad(self) -> int:
        return self.chance.choice((1 << 47, (1 << 47) - self.chance.randrange(1, 9), 0xFFFF7FFFFFFFFFFC, 1 << 62))

    def _stream(self, at: int) -> None:
        """Instructions in a row, from an address to an end."""
        for _ in range(self.chance.randrange(1, 14)):
            self.code[at] = self.chance.choice(_INSTRUCTIONS)(self, at)
            at += len(self.code[at][0])
        self.code[at] = (_UD2, end)

    def _put(self, contents: dict[int, bytes]) -> None:
        """Text lies in its frames whether the pages are there or not; what is between instructions is undefined."""
        text = bytearray(_UD2 * (PAGES * PAGE // 2))
        for at, (code, _) in self.code.items():
            text[at - TEXT : at - TEXT + len(code)] = code
        for index in range(PAGES):
            contents[FRAMES + index] = bytes(text[index * PAGE : (index + 1) * PAGE])

    # Encoding

    def size_prefix(self, size: int) -> bytes:
        return {1: b"", 2: b"\x66", 4: b"", 8: b"\x48"}[size]

    def memory(self, register: int) -> tuple[bytes, int, int]:
        """ModRM and what follows for [base + disp8]; base and displacement."""
        base, distance = self.chance.choice(_BASES), self.chance.randrange(-9, 10)
        modrm = bytes((0x40 | register << 3 | base,)) + (b"\x24" if base == SP else b"")
        return modrm + struct.pack("<b", distance), base, distance


def end(_model: Model) -> None:
    raise Fault(UD, None)


def _store(writer: Writer, _at: int) -> Encoded:
    size, register = writer.chance.choice(writer.sizes), writer.chance.choice((AX, CX, DX, BX))
    operand, base, distance = writer.memory(register)
    code = writer.size_prefix(size) + (b"\x88" if size == 1 else b"\x89") + operand

    def step(model: Model) -> None:
        at, segment = place(model, base, distance)
        model.store(at, size, model.get(register, size), segment)

    return code, step


def _load(writer: Writer, _at: int) -> Encoded:
    size, register = writer.chance.choice(writer.sizes), writer.chance.choice((AX, CX, DX, BX))
    operand, base, distance = writer.memory(register)
    code = writer.size_prefix(size) + (b"\x8a" if size == 1 else b"\x8b") + operand

    def step(model: Model) -> None:
        at, segment = place(model, base, distance)
        model.set(register, size, model.load(at, size, segment))

    return code, step


def _add(writer: Writer, _at: int) -> Encoded:
    size = writer.chance.choice(writer.sizes[2:])
    operand, base, distance = writer.memory(DX)

    def step(model: Model) -> None:
        at, segment = place(model, base, distance)
        old, flags = model.load(at, size, segment, change=True), model.flags
        result = model.add_flags(old, model.get(DX, size), size)
        new, model.flags = model.flags, flags
        model.store(at, size, result, segment)
        model.flags = new

    return writer.size_prefix(size) + b"\x01" + operand, step


def _exchange(writer: Writer, _at: int) -> Encoded:
    size = writer.chance.choice(writer.sizes[1:])
    operand, base, distance = writer.memory(AX)

    def step(model: Model) -> None:
        at, segment = place(model, base, distance)
        old = model.load(at, size, segment, change=True)
        model.store(at, size, model.get(AX, size), segment)
        model.set(AX, size, old)

    return writer.size_prefix(size) + b"\x87" + operand, step


def _push(writer: Writer, _at: int) -> Encoded:
    register = writer.chance.randrange(8)
    return bytes((0x50 + register,)), lambda model: model.push(model.registers[register])


def _pop(writer: Writer, _at: int) -> Encoded:
    register = writer.chance.randrange(8)

    def step(model: Model) -> None:
        value = model.top()
        model.drop()
        model.registers[register] = value

    return bytes((0x58 + register,)), step


def _push_memory(writer: Writer, _at: int) -> Encoded:
    operand, base, distance = writer.memory(6)

    def step(model: Model) -> None:
        at, segment = place(model, base, distance)
        model.push(model.load(at, model.word, segment))

    return b"\xff" + operand, step


def _pop_memory(writer: Writer, _at: int) -> Encoded:
    operand, base, distance = writer.memory(0)

    def step(model: Model) -> None:
        value = model.top()
        model.drop()  # an address by the stack pointer is that after the pop
        at, segment = place(model, base, distance)
        model.store(at, model.word, value, segment)

    return b"\x8f" + operand, step


def _push_number(writer: Writer, _at: int) -> Encoded:
    number = writer.chance.randrange(-128, 128)
    return b"\x6a" + struct.pack("<b", number), lambda model: model.push(number & model.mask)


def _leave(_writer: Writer, _at: int) -> Encoded:
    def step(model: Model) -> None:
        value = model.load(model.registers[BP], model.word, "ss")
        model.registers[SP] = model.registers[BP] + model.word & model.mask
        model.registers[BP] = value

    return b"\xc9", step


def _jump_to(model: Model, target: int) -> None:
    if model.world.bits == 64 and target >> 47 not in {0, 0x1FFFF}:
        raise OffTheMapError  # where the fault of such a jump is told differs between processors
    model.target = target


def _call(writer: Writer, at: int) -> Encoded:
    target = writer.chance.choice(writer.starts) if writer.chance.random() < 0.5 else writer.near(TEXT)

    def step(model: Model) -> None:
        model.push(model.target)
        _jump_to(model, target)

    return b"\xe8" + struct.pack("<i", target - at - 5), step


def _call_memory(writer: Writer, _at: int) -> Encoded:
    operand, base, distance = writer.memory(2)

    def step(model: Model) -> None:
        at, segment = place(model, base, distance)
        target = model.load(at, model.word, segment)
        back = model.target
        _jump_to(model, target)
        model.push(back)

    return b"\xff" + operand, step


def _return(_writer: Writer, _at: int) -> Encoded:
    def step(model: Model) -> None:
        target = model.top()
        _jump_to(model, target)
        model.drop()

    return b"\xc3", step


def _string(writer: Writer, _at: int) -> Encoded:
    size = writer.chance.choice(writer.sizes)
    what, opcode = writer.chance.choice((("movs", 0xA4), ("stos", 0xAA), ("lods", 0xAC)))
    repeated = writer.chance.random() < 0.6
    code = (b"\xf3" if repeated else b"") + writer.size_prefix(size) + bytes((opcode + (size > 1),))

    def once(model: Model) -> None:
        step = -size if model.flags & DF else size
        if what == "movs":
            model.store(model.registers[DI], size, model.load(model.registers[SI], size))
        elif what == "stos":
            model.store(model.registers[DI], size, model.get(AX, size))
        else:
            model.set(AX, size, model.load(model.registers[SI], size))
        for register in {"movs": (SI, DI), "stos": (DI,), "lods": (SI,)}[what]:
            model.registers[register] = model.registers[register] + step & model.mask

    def many(model: Model) -> None:
        while model.registers[CX]:
            once(model)
            model.registers[CX] -= 1
            model.progress = True

    return code, many if repeated else once


def _comparison(writer: Writer, _at: int) -> Encoded:
    size = writer.chance.choice(writer.sizes)
    of_memory = writer.chance.random() < 0.5
    repeated, wanted = writer.chance.choice(((b"", None), (b"\xf3", True), (b"\xf2", False)))
    code = repeated + writer.size_prefix(size) + bytes(((0xA6 if of_memory else 0xAE) + (size > 1),))

    def once(model: Model) -> None:
        step = -size if model.flags & DF else size
        if of_memory and model.faults(model.registers[SI], size) and model.faults(model.registers[DI], size):
            raise OffTheMapError  # the manual does not say which of them is read first
        left = model.load(model.registers[SI], size) if of_memory else model.get(AX, size)
        right = model.load(model.registers[DI], size)
        model.compare_flags(left, right, size)
        for register in (SI, DI) if of_memory else (DI,):
            model.registers[register] = model.registers[register] + step & model.mask

    def many(model: Model) -> None:
        while model.registers[CX]:
            once(model)
            model.registers[CX] -= 1
            model.progress = True
            if bool(model.flags & ZF) is not wanted:
                return

    return code, once if wanted is None else many


def _push_flags(_writer: Writer, _at: int) -> Encoded:
    return b"\x9c", lambda model: model.push(model.flags)


def _push_half(writer: Writer, _at: int) -> Encoded:
    register = writer.chance.choice((AX, CX, DX))
    return bytes((0x66, 0x50 + register)), lambda model: model.push(model.get(register, 2), 2)


def _pop_half(writer: Writer, _at: int) -> Encoded:
    register = writer.chance.choice((AX, CX, DX))

    def step(model: Model) -> None:
        model.set(register, 2, model.top(2))
        model.drop(2)

    return bytes((0x66, 0x58 + register)), step


def _translate(_writer: Writer, _at: int) -> Encoded:
    def step(model: Model) -> None:
        model.set(AX, 1, model.load(model.registers[BX] + model.get(AX, 1), 1))

    return b"\xd7", step


def _count(writer: Writer, _at: int) -> Encoded:
    number = writer.chance.randrange(20)
    return b"\xb9" + struct.pack("<I", number), lambda model: model.set(CX, 4, number)


def _direction(writer: Writer, _at: int) -> Encoded:
    down = writer.chance.random() < 0.5

    def step(model: Model) -> None:
        model.flags = model.flags & ~DF | (DF if down else 0)

    return b"\xfd" if down else b"\xfc", step


def _point(writer: Writer, _at: int) -> Encoded:
    register = writer.chance.choice((SI, DI, BX, BP))
    operand, base, distance = writer.memory(register)
    prefix = b"\x48" if writer.bits == 64 else b""

    def step(model: Model) -> None:
        model.registers[register] = model.registers[base] + distance & model.mask

    return prefix + b"\x8d" + operand, step


def _nothing(writer: Writer, _at: int) -> Encoded:
    code = writer.chance.choice(("90", "6690", "0f1f00", "0f1f4000", "0f1f440000", "660f1f440000", "0f1f840000000000"))
    return bytes.fromhex(code), lambda _model: None


_INSTRUCTIONS: Final[tuple[Callable[[Writer, int], Encoded], ...]] = (
    *(_store, _store, _store, _load, _load, _load, _add, _exchange, _push, _push, _pop, _pop, _push_memory),
    *(_pop_memory, _push_number, _leave, _call, _call, _call_memory, _return, _string, _string, _string),
    *(_comparison, _comparison, _push_flags, _push_half, _pop_half, _translate),
    *(all_registers, all_registers, enter),
    *(_count, _direction, _point, _nothing, _nothing, _nothing),
)
