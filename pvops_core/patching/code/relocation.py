"""Relative branches in code that is moved from where it was assembled to where it will run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from pvops_core.errors import PatchError

if TYPE_CHECKING:
    from pvops_core.patching.code.disasm import Encoding

CALL: Final = 0xE8
JUMP: Final = 0xE9
JUMP_SHORT: Final = 0xEB
INT3: Final = 0xCC
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
    # 6.1 relocates a lone branch; code that begins with one and goes on is copied as it is.
    if len(code) != BRANCH_SIZE or code[0] not in {CALL, JUMP}:
        return code
    distance = int.from_bytes(code[1:], "little", signed=True)
    if code[0] == CALL:
        return bytes([CALL]) + signed32(distance + source - destination).to_bytes(4, "little", signed=True)
    distance = signed32(distance + source + BRANCH_SIZE - destination)
    # recompute_jump shortens forward jumps alone; backward ones keep four bytes.
    if 0 <= distance <= 127 + SHORT_SIZE:
        return bytes([JUMP_SHORT, (distance - SHORT_SIZE) & 0xFF]) + nops(BRANCH_SIZE - SHORT_SIZE)
    return bytes([JUMP]) + signed32(distance - BRANCH_SIZE).to_bytes(4, "little", signed=True)


def relocate_code(code: bytes, length: int, source: int, destination: int, instructions: Iterable[Encoding]) -> bytes:
    """A replacement as kernels since 6.5 write it (``apply_relocation``): all that is relative keeps its target.

    A branch within the replacement stays as it is, and a ``jmp rel32`` becomes the two-byte form wherever the new
    distance fits, with int3 in the three bytes saved.

    Args:
        code: the replacement as assembled, padded to its place.
        length: its own bytes, without the padding.
        source: virtual address where it was assembled.
        destination: virtual address where it will run.
        instructions: what ``code`` is made of.

    Raises:
        PatchError: a branch of a byte that would have to lead further.
    """
    result, at, shift = bytearray(code), 0, source - destination
    for each in instructions:
        following = at + each.size
        for start, size in each.relative:
            field = slice(at + start, at + start + size)
            distance = int.from_bytes(code[field], "little", signed=True)
            moved = distance + shift
            # A branch within the replacement moves with it; only what leads out keeps its target.
            if not 0 <= following + distance <= length:
                try:
                    result[field] = moved.to_bytes(size, "little", signed=True)
                except OverflowError:
                    raise PatchError(f"a distance of {size} bytes cannot become {moved}", address=destination) from None
            # Kernels since 6.5 shorten in either direction, and fill the gap with int3.
            if code[at] == JUMP and -128 <= moved + BRANCH_SIZE - SHORT_SIZE <= 127:
                shortened = bytes([JUMP_SHORT, (moved + BRANCH_SIZE - SHORT_SIZE) & 0xFF])
                result[at:following] = shortened.ljust(each.size, bytes([INT3]))
        at = following
    return bytes(result)
