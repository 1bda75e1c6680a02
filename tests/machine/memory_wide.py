"""More of the programs' instructions: those that the machine's engine does not make at once."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from tests.machine.memory_model import AX, BP, SP, Fault, Model, OffTheMapError, place

if TYPE_CHECKING:
    from tests.machine.memory_programs import Encoded, Writer

_WIDE: Final = 16
_MOVES: Final = {b"": "movups", b"\x66": "movupd", b"\xf3": "movdqu"}
"""By prefix: of the third the opcodes are others."""


def wide_set(writer: Writer, _at: int) -> Encoded:
    """Pcmpeqd xmm0, xmm0, or pxor."""
    writer.wide = True
    ones = writer.chance.random() < 0.5

    def step(model: Model) -> None:
        model.wide = (1 << 8 * _WIDE) - 1 if ones else 0

    return b"\x66\x0f\x76\xc0" if ones else b"\x66\x0f\xef\xc0", step


def _wide(writer: Writer, *, write: bool) -> tuple[bytes, int, int]:
    """An unaligned move of xmm0."""
    writer.wide = True
    prefix = writer.chance.choice(tuple(_MOVES))
    opcode = (0x7F if write else 0x6F) if prefix == b"\xf3" else (0x11 if write else 0x10)
    operand, base, distance = writer.memory(0)
    return prefix + bytes((0x0F, opcode)) + operand, base, distance


def wide_store(writer: Writer, _at: int) -> Encoded:
    code, base, distance = _wide(writer, write=True)

    def step(model: Model) -> None:
        if model.wide is None:
            raise OffTheMapError  # what the one before has left there
        at, segment = place(model, base, distance)
        model.store(at, _WIDE, model.wide, segment)

    return code, step


def wide_load(writer: Writer, _at: int) -> Encoded:
    code, base, distance = _wide(writer, write=False)

    def step(model: Model) -> None:
        at, segment = place(model, base, distance)
        model.wide = model.load(at, _WIDE, segment)

    return code, step


def wide_out(writer: Writer, _at: int) -> Encoded:
    """Movd eax, xmm0, so that the register is seen."""
    writer.wide = True

    def step(model: Model) -> None:
        if model.wide is None:
            raise OffTheMapError
        model.set(AX, 4, model.wide & 0xFFFFFFFF)

    return b"\x66\x0f\x7e\xc0", step


def all_registers(writer: Writer, _at: int) -> Encoded:
    """Pusha or popa, where there are such."""
    if writer.bits == 64:
        return b"\x90", lambda _model: None
    size = writer.chance.choice((2, 4))
    prefix = b"\x66" if size == 2 else b""

    def push(model: Model) -> None:
        first = model.registers[SP]
        for number in range(8):
            model.push(model.get(number, size) if number != SP else first & (1 << 8 * size) - 1, size)

    def pop(model: Model) -> None:
        whole = model.load(model.registers[SP], 8 * size, "ss")
        for number in range(8):
            if number != SP:
                model.set(number, size, whole >> 8 * size * (7 - number) & (1 << 8 * size) - 1)
        model.registers[SP] = model.registers[SP] + 8 * size & model.mask

    return (prefix + b"\x60", push) if writer.chance.random() < 0.5 else (prefix + b"\x61", pop)


def enter(writer: Writer, _at: int) -> Encoded:
    """Enter with levels; it wants to write where the stack pointer ends as well."""
    room, levels = writer.chance.randrange(0, 40), writer.chance.randrange(1, 4)

    def step(model: Model) -> None:
        before = model.registers[SP]
        try:
            whole(model)
        except Fault:
            if model.registers[SP] != before:
                raise OffTheMapError from None  # Bochs leaves what it has pushed, which the manual does not forbid
            raise

    def whole(model: Model) -> None:
        model.push(model.registers[BP])
        frame = model.registers[SP]
        for level in range(1, levels):
            model.push(model.load(model.registers[BP] - level * model.word, model.word, "ss"))
        model.push(frame)
        model.registers[SP] = model.registers[SP] - room & model.mask
        model.may_write(model.registers[SP], "ss")
        model.registers[BP] = frame

    return b"\xc8" + struct.pack("<HB", room, levels), step
