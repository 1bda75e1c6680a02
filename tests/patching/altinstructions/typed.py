"""Kernels with types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.images import load_image
from pvops_core.testing.images import ElfBuilder
from pvops_core.testing.types import ARRAY, INT, UNION, Types

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.images import KernelImage


def typed(words: int, bugs: int, names: Mapping[int, str]) -> KernelImage:
    """A kernel whose cpuinfo_x86 has so many words of features and bugs at bit 64, and names for some."""
    types = Types()
    number = types.add(INT, "unsigned int", 4, tail=bytes(4))
    array = types.add(ARRAY, "", 0, tail=bytes(8) + words.to_bytes(4, "little"))
    union = types.struct("", [("x86_capability", array, 0)], 4 * words, UNION)
    types.struct("cpuinfo_x86", [("x86", number, 0), ("", union, 64)], 8 + 4 * words)
    builder = ElfBuilder()
    builder.text(".text", bytes(16))
    start = builder.base + 0x1000
    count = 32 * words
    order = [*range(32 * (words - bugs), count), *range(32 * (words - bugs))]
    strings, table = b"", b""
    for index in order:
        text = names.get(index, "").encode()
        table += (start + 8 * count + len(strings) if text else 0).to_bytes(8, "little")
        strings += text + b"\0" if text else b""
    builder.section(".rodata", table + strings + bytes(32), address=start)
    builder.symbol("x86_bug_flags", start)
    builder.symbol("x86_cap_flags", start + 8 * 32 * bugs)
    builder.section(".BTF", types.build())
    return load_image(builder.build())
