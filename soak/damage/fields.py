"""Damage to the fields of images, one to four at a time: each gets a value that somebody might have forgotten."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Final

_EHDR: Final = {64: ((16, 2), (18, 2), (20, 4), (24, 8), (32, 8), (40, 8), (48, 4), (52, 2), (54, 2), (56, 2), (58, 2),
                     (60, 2), (62, 2)),
                32: ((16, 2), (18, 2), (20, 4), (24, 4), (28, 4), (32, 4), (36, 4), (40, 2), (42, 2), (44, 2), (46, 2),
                     (48, 2), (50, 2))}  # fmt: skip
"""Place and size of each field of Elf64_Ehdr and Elf32_Ehdr behind e_ident (ELF specification, figure 1-3)."""
_PHDR: Final = {
    64: ((0, 4), (4, 4), *((at, 8) for at in range(8, 56, 8))),
    32: tuple((at, 4) for at in range(0, 32, 4)),
}
_SHDR: Final = {64: ((0, 4), (4, 4), (8, 8), (16, 8), (24, 8), (32, 8), (40, 4), (44, 4), (48, 8), (56, 8)),
                32: tuple((at, 4) for at in range(0, 40, 4))}  # fmt: skip
_BOOT: Final = (
    *((0x1F1, 1), (0x1F4, 4), (0x1FE, 2), (0x202, 4), (0x206, 2), (0x20E, 2), (0x211, 1), (0x214, 4), (0x228, 4)),
    *((0x230, 4), (0x234, 1), (0x236, 2), (0x248, 4), (0x24C, 4), (0x258, 8), (0x260, 4)),
)
"""Place and size of fields of the setup header (Documentation/arch/x86/boot.rst of Linux)."""


def odd(chance: random.Random, old: int, size: int, length: int) -> int:
    """A value for a field of so many bytes in a file of such a length."""
    limit = (1 << 8 * size) - 1
    values = [0, 1, old + 1, old - 1, old * 2, old // 2, old ^ 0x1000, old ^ 1 << chance.randrange(8 * size)]
    values += [length, length - 1, length + 1, limit, limit >> 1, limit - 0xFFF, chance.randrange(limit + 1)]
    return chance.choice(values) & limit


def _spoil(raw: bytearray, at: int, size: int, chance: random.Random) -> None:
    if at + size <= len(raw):
        old = int.from_bytes(raw[at : at + size], "little")
        raw[at : at + size] = odd(chance, old, size, len(raw)).to_bytes(size, "little")


def elf(good: bytes, chance: random.Random) -> bytes:
    """An ELF file with something wrong in its header, a program header or a section header; now and then cut."""
    raw = bytearray(good)
    bits = 64 if good[4] == 2 else 32
    phoff, shoff = struct.unpack_from("<QQ" if bits == 64 else "<II", good, 32 if bits == 64 else 28)
    phnum, shnum = (struct.unpack_from("<H", good, at)[0] for at in ((56, 60) if bits == 64 else (44, 48)))
    tables: Sequence[tuple[int, int, int, tuple[tuple[int, int], ...]]] = (
        (0, 1, 0, _EHDR[bits]),
        (phoff, phnum, 56 if bits == 64 else 32, _PHDR[bits]),
        (shoff, shnum, 64 if bits == 64 else 40, _SHDR[bits]),
    )
    for _ in range(chance.randint(1, 4)):
        start, count, size, members = chance.choice([each for each in tables if each[1]])
        at, width = chance.choice(members)
        _spoil(raw, start + size * chance.randrange(count) + at, width, chance)
    return _cut(raw, chance)


def boot(good: bytes, chance: random.Random) -> bytes:
    """A bzImage with something wrong in its setup header or at its payload's ends; now and then cut."""
    raw = bytearray(good)
    for _ in range(chance.randint(1, 4)):
        if chance.randrange(4):
            _spoil(raw, *chance.choice(_BOOT), chance)
        else:
            _spoil(raw, max(0, len(raw) - chance.randrange(1, 64)), 4, chance)
    return _cut(raw, chance)


def stream(good: bytes, chance: random.Random) -> bytes:
    """A packed payload with bytes changed: mostly near its begin, where it says what it is, and its end."""
    raw = bytearray(good)
    for _ in range(chance.randint(1, 4)):
        near = chance.choice((32, 512, len(raw)))
        at = chance.randrange(min(near, len(raw)))
        _spoil(raw, at if chance.randrange(4) else len(raw) - 1 - at, chance.choice((1, 2, 4)), chance)
    return _cut(raw, chance)


def _cut(raw: bytearray, chance: random.Random) -> bytes:
    return bytes(raw[: chance.randrange(len(raw))] if not chance.randrange(20) else raw)
