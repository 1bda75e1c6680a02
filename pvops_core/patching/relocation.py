"""Relative branches in code that is moved from where it was assembled to where it will run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

CALL: Final = 0xE8
JUMP: Final = 0xE9
JUMP_SHORT: Final = 0xEB
BRANCH_SIZE: Final = 5
SHORT_SIZE: Final = 2

_WORD: Final = 1 << 32


def signed32(value: int) -> int:
    """The low 32 bits of a number as C's ``s32``."""
    value &= _WORD - 1
    return value - _WORD if value >> 31 else value


def relocate_replacement(code: bytes, source: int, destination: int, nops: Callable[[int], bytes]) -> bytes:
    """An ALTERNATIVE's replacement as ``apply_alternatives`` writes it (arch/x86/kernel/alternative.c, 6.1).

    A replacement that is one ``call rel32`` keeps its target; one that is one ``jmp rel32`` keeps it too and becomes
    the two-byte form where a forward distance fits (``recompute_jump``; a backward one never does there). All others
    are copied as they are.

    Args:
        code: the replacement as assembled.
        source: virtual address where it was assembled.
        destination: virtual address where it will run.
        nops: what the three bytes saved by a short jump are filled with.
    """
    if len(code) != BRANCH_SIZE or code[0] not in {CALL, JUMP}:
        return code
    distance = int.from_bytes(code[1:], "little", signed=True)
    if code[0] == CALL:
        return bytes([CALL]) + signed32(distance + source - destination).to_bytes(4, "little", signed=True)
    distance = signed32(distance + source + BRANCH_SIZE - destination)
    if 0 <= distance <= 127 + SHORT_SIZE:
        return bytes([JUMP_SHORT, (distance - SHORT_SIZE) & 0xFF]) + nops(BRANCH_SIZE - SHORT_SIZE)
    return bytes([JUMP]) + signed32(distance - BRANCH_SIZE).to_bytes(4, "little", signed=True)
