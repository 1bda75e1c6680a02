"""kallsyms tables written in memory as scripts/kallsyms.c writes them, in each order and shape that it has had."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

import attrs

BASES: Final = {64: 0xFFFFFFFF81000000, 32: 0xC1000000}

Order = Literal["absolute", "before", "after", "own"]


@attrs.frozen
class TableShape:
    """One way the tables have been laid out.

    Attributes:
        bits: word size.
        order: addresses as pointers in front (to 4.5), offsets in front (to 6.3) or behind (6.4 on), or offsets from
            where they lie themselves (7.2).
        percpu: KALLSYMS_ABSOLUTE_PERCPU.
        marker: bytes of a marker: pointer-sized to 4.19, then 4.
        sequence: kallsyms_seqs_of_names between markers and tokens (6.2, 6.3).
    """

    bits: int
    order: Order
    percpu: bool = False
    marker: int = 4
    sequence: bool = False


SHAPES: Final = (
    TableShape(64, "absolute", marker=8),
    TableShape(32, "absolute"),
    TableShape(64, "before", percpu=True, marker=8),
    TableShape(64, "before", percpu=True),
    TableShape(64, "before", percpu=True, sequence=True),
    TableShape(64, "before"),
    TableShape(32, "before"),
    TableShape(64, "after", percpu=True),
    TableShape(64, "after"),
    TableShape(32, "after"),
    TableShape(64, "own"),
    TableShape(32, "own"),
)


def compress(names: Sequence[str]) -> tuple[list[bytes], list[bytes]]:
    """256 tokens and every name in them: characters used keep their code, frequent pairs take free ones."""
    text = [name.encode() for name in names]
    used = {byte for name in text for byte in name} | set(b"0123456789")
    tokens = [bytes([code]) if code in used else b"" for code in range(256)]
    free = [code for code in range(1, 256) if code not in used]
    pairs = Counter(name[at : at + 2] for name in text for at in range(1, len(name) - 1, 2))
    chosen = [pair for pair, _ in pairs.most_common(len(free) - 4)]
    for code, pair in zip(free, chosen, strict=False):
        tokens[code] = pair
    coded = {pair: bytes([code]) for code, pair in zip(free, chosen, strict=False)}
    packed = []
    for name in text:
        body = name[:1]
        for at in range(1, len(name), 2):
            body += coded.get(name[at : at + 2], name[at : at + 2])
        packed.append(body)
    return tokens, packed


def tables(symbols: Sequence[tuple[str, int]], shape: TableShape, address: int = 0) -> bytes:
    """The tables of some symbols.

    Args:
        symbols: type letter and name in one, and address, of each.
        shape: how to lay them out.
        address: where they will be in memory; aligned to a pointer.
    """
    pointer = shape.bits // 8
    word = "<Q" if pointer == 8 else "<I"
    align = 4 if shape.order == "own" else pointer

    def aligned(data: bytes) -> bytes:
        return data + bytes(-len(data) % align)

    tokens, packed = compress([name for name, _ in symbols])
    names, markers = b"", b""
    for index, body in enumerate(packed):
        # A marker for every 256th name (scripts/kallsyms.c).
        if index % 256 == 0:
            markers += len(names).to_bytes(shape.marker, "little")
        size = len(body)
        # A length above 127 takes two bytes, the low seven bits first (scripts/kallsyms.c).
        names += (bytes([size]) if size < 0x80 else bytes([size & 0x7F | 0x80, size >> 7])) + body
    table = b"".join(token + b"\0" for token in tokens)
    starts = [sum(len(token) + 1 for token in tokens[:code]) for code in range(256)]
    middle = aligned(struct.pack("<I", len(symbols))) + aligned(names) + aligned(markers)
    if shape.sequence:
        middle += aligned(b"".join(index.to_bytes(3, "big") for index in range(len(symbols))))
    middle += aligned(table) + aligned(struct.pack("<256H", *starts))
    if shape.order == "absolute":
        return b"".join(struct.pack(word, at) for _, at in symbols) + middle
    if shape.order == "own":
        here = address + len(middle)
        return middle + b"".join(struct.pack("<i", at - here - 4 * number) for number, (_, at) in enumerate(symbols))
    base = BASES[shape.bits]
    if shape.percpu:
        # Per-CPU symbols are absolute and stand as they are, others as negative numbers (kallsyms_sym_address()).
        offsets = [at if at < 1 << 31 else base - 1 - at for _, at in symbols]
    else:
        offsets = [max(at, base) - base for _, at in symbols]
    relative = aligned(struct.pack(f"<{len(offsets)}i", *offsets)) + struct.pack(word, base)
    return relative + middle if shape.order == "before" else middle + relative
