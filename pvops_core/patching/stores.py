"""Constants that a function stores at fixed addresses, read off its code as it lies there.

A compiler makes of ``pv_irq_ops.safe_halt = lguest_safe_halt`` one instruction, or two with a register between, which
it may have loaded a good deal earlier. Branches are not followed: what is under a condition counts too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from pvops_core.patching.code.disasm import instruction_lengths

_CALL, _STORE_EAX, _LOAD_EAX = 0xE8, 0xA3, 0xA1  # call rel32; mov moffs32, eax and back
_STORE, _STORE_CONSTANT = 0x89, 0xC7  # mov r/m, register and mov r/m, imm32
_XOR: Final = frozenset({0x31, 0x33})  # of a register with itself: 0
_SCRATCH: Final = (0, 1, 2, 6, 7, 8, 9, 10, 11)
"""Numbers of the registers that a call may change: rax, rcx, rdx, rsi, rdi, r8 to r11; in 32-bit code no more."""

_TO_REGISTER: Final = frozenset({0x8B, 0x8D, 0x03, 0x0B, 0x13, 0x1B, 0x23, 0x2B, 0x33, 0x63})
"""Opcodes whose destination is the register in the middle field of their ModRM byte."""

_TO_EITHER: Final = frozenset({0x89, 0x81, 0x83, 0xC1, 0xD1, 0xFF, 0x01, 0x09, 0x21, 0x29, 0x31})
"""Opcodes whose destination is what the last field names: a register, where the first has all bits set."""


@attrs.frozen
class _Parts:
    """An instruction's opcode, ModRM fields as register numbers, and what follows, behind a REX prefix."""

    opcode: int
    wide: bool
    direct: bool
    """The last field is an address, or in 64-bit code a distance from the next instruction."""
    register: int
    other: int | None
    """The register of the last field; None where that is memory."""
    number: int
    """The register in an opcode's low bits."""
    rest: bytes


def _parts(instruction: bytes, bits: int) -> _Parts:
    rex, body = 0, instruction
    # REX prefixes are 40H to 4FH, in 64-bit code alone (SDM volume 2, 2.2.1).
    if bits == 64 and body[0] & 0xF0 == 0x40:
        rex, body = body[0], body[1:]
    body = body.ljust(2, b"\0")
    opcode, modrm = body[0], body[1]
    # REX.R and REX.B are the fourth bits of ModRM's registers, REX.W the width (SDM volume 2, 2.2.1.2).
    other = modrm & 7 | (rex & 1) << 3 if modrm & 0xC0 == 0xC0 else None
    register, number = modrm >> 3 & 7 | (rex & 4) << 1, opcode & 7 | (rex & 1) << 3
    return _Parts(opcode, bool(rex & 8), modrm & 0xC7 == 5, register, other, number, body[1:])


def constant_stores(code: bytes, address: int, bits: int) -> Iterator[tuple[int, int]]:
    """Address and value of each store of a known constant of a pointer's size, in the order of the code.

    Args:
        code: the function.
        address: its virtual address.
        bits: 32 or 64.
    """
    known: dict[int, int] = {}
    at = 0
    for length in instruction_lengths(code, bits):
        parts = _parts(code[at : at + length], bits)
        at += length
        found = _stored(parts, address + at, known, bits)
        if found is not None:
            yield found
        _follow(parts, known, bits)


def _stored(parts: _Parts, following: int, known: dict[int, int], bits: int) -> tuple[int, int] | None:
    """What an instruction stores where, if both are known."""
    mask = (1 << bits) - 1
    if parts.opcode == _STORE_EAX and bits == 32:
        return _pair(int.from_bytes(parts.rest[:4], "little"), known.get(0))
    # A pointer is stored with the width of one: other stores are of something else.
    if parts.opcode not in {_STORE, _STORE_CONSTANT} or not parts.direct or parts.wide != (bits == 64):
        return None
    operand = int.from_bytes(parts.rest[1:5], "little", signed=True)
    # In 64-bit code the address is relative to the next instruction.
    place = (operand + following if bits == 64 else operand) & mask
    if parts.opcode == _STORE:
        return _pair(place, known.get(parts.register))
    return place, int.from_bytes(parts.rest[5:9], "little", signed=True) & mask


def _pair(place: int, value: int | None) -> tuple[int, int] | None:
    return None if value is None else (place, value)


def _follow(parts: _Parts, known: dict[int, int], bits: int) -> None:
    """What is known of registers behind an instruction."""
    lost: tuple[int | None, ...] = ()
    # The opcode's low bits are the register, and REX.B its fourth bit (SDM volume 2, MOV).
    if 0xB8 <= parts.opcode <= 0xBF:  # mov register, number
        known[parts.number] = int.from_bytes(parts.rest[: 8 if parts.wide else 4], "little")
    elif parts.opcode == _STORE_CONSTANT and parts.other is not None:
        known[parts.other] = int.from_bytes(parts.rest[1:5], "little", signed=True) & ((1 << bits) - 1)
    elif parts.opcode in _XOR and parts.other == parts.register:
        known[parts.register] = 0
    elif parts.opcode == _CALL:
        lost = _SCRATCH
    elif parts.opcode == _LOAD_EAX:
        lost = (0,)
    elif parts.opcode in _TO_REGISTER:
        lost = (parts.register,)
    elif parts.opcode in _TO_EITHER:
        lost = (parts.other,)
    elif 0x58 <= parts.opcode <= 0x5F:  # pop register
        lost = (parts.number,)
    for number in lost:
        known.pop(-1 if number is None else number, None)
