"""More of the programs' instructions: those of many words, which the machine's engine makes one by one."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from tests.machine.memory_model import BP, SP, Fault, Model, OffTheMapError

if TYPE_CHECKING:
    from tests.machine.memory_programs import Encoded, Writer


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
    """Enter with levels in 32-bit code; it wants to write where the stack pointer ends as well."""
    if writer.bits == 64:
        return b"\x90", lambda _model: None
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
