"""Call frame information as bytes: instructions, and the entries of ``.debug_frame`` that hold them.

Sources: DWARF 4, sections 6.4 and 7.23; the x86-64 psABI, figure 3.36, for the numbers of registers.
"""

from __future__ import annotations

import struct
from typing import Final

RAX, RDX, RCX, RBX, RSI, RDI, RBP, RSP = range(8)
R8, R9, R10, R11, R12, R13, R14, R15 = range(8, 16)
RETURN: Final = 16
"""The column of the return address."""
FLAGS, CS, SS = 49, 51, 52
DATA_FACTOR: Final = -8
"""Saved registers' offsets are counted in these."""
_EMPTY: Final = b"\0"
_ADDRESS: Final = 8


def uleb(value: int) -> bytes:
    """A number from 0 on, LEB128."""
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*made, value))


def sleb(value: int) -> bytes:
    """A number with a sign, LEB128."""
    made = bytearray()
    while not -0x40 <= value < 0x40:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*made, value & 0x7F))


def frame_at(register: int, offset: int) -> bytes:
    """The frame's address (CFA) is a register's value and an offset."""
    if offset < 0:  # which the instruction cannot tell
        return frame_of(address_at(register, offset))
    return b"\x0c" + uleb(register) + uleb(offset)


def frame_of(expression: bytes) -> bytes:
    """The frame's address is an expression's value."""
    return b"\x0f" + uleb(len(expression)) + expression


def saved(register: int, offset: int) -> bytes:
    """The caller's register lies at an offset from the frame's address, a multiple of 8."""
    return b"\x11" + uleb(register) + sleb(offset // DATA_FACTOR)


def saved_at(register: int, expression: bytes) -> bytes:
    """The caller's register lies where an expression says."""
    return b"\x10" + uleb(register) + uleb(len(expression)) + expression


def same(register: int) -> bytes:
    """The caller's register has the value that it has here."""
    return b"\x08" + uleb(register)


def lost(register: int) -> bytes:
    """Nobody knows the caller's register; of the return address: there is no caller."""
    return b"\x07" + uleb(register)


def address_at(register: int, offset: int) -> bytes:
    """Expression: a register's value and an offset."""
    return bytes([0x70 + register]) + sleb(offset)


def load() -> bytes:
    """Expression: the word there."""
    return b"\x06"


def plus(offset: int) -> bytes:
    """Expression: that and an offset."""
    return b"\x11" + sleb(offset) + b"\x22"


def advance(distance: int) -> bytes:
    """What follows holds so many bytes further on."""
    if distance < 1 << 6:
        return bytes([0x40 | distance])
    if distance < 1 << 8:
        return b"\x02" + distance.to_bytes(1, "little")
    if distance < 1 << 16:
        return b"\x03" + distance.to_bytes(2, "little")
    if distance < 1 << 32:
        return b"\x04" + distance.to_bytes(4, "little")
    return b"\x1d" + distance.to_bytes(8, "little")  # DW_CFA_MIPS_advance_loc8, which readers of x86 know too


def common_entry(instructions: bytes, *, interrupted: bool) -> bytes:
    """What many functions' entries have in common.

    Args:
        instructions: what holds where each begins.
        interrupted: the callers of these frames did not call: what they go on at has not been executed.
    """
    # DWARF 3's form: the first whose column of the return address may be any number.
    head = b"\x03" + (b"zS" if interrupted else b"") + b"\0" + uleb(1) + sleb(DATA_FACTOR) + uleb(RETURN)
    return _entry(0xFFFFFFFF, head + _augmented(interrupted=interrupted) + instructions)


def function_entry(common: int, start: int, length: int, instructions: bytes, *, interrupted: bool) -> bytes:
    """What holds in a range of text.

    Args:
        common: offset of its common entry in the section.
        start: its first address.
        length: bytes.
        instructions: what is otherwise than in the common entry.
        interrupted: as of that.
    """
    place = struct.pack("<QQ", start, length)
    return _entry(common, place + _augmented(interrupted=interrupted) + instructions)


def _augmented(*, interrupted: bool) -> bytes:
    """Bytes of augmentation data, of which there are none: with a length readers need not know what is meant."""
    return uleb(0) if interrupted else b""


def _entry(identity: int, body: bytes) -> bytes:
    body += _EMPTY * (-(len(body) + 2 * 4) % _ADDRESS)
    return struct.pack("<II", len(body) + 4, identity) + body
