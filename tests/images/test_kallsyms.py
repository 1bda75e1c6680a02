"""The tables are written here as scripts/kallsyms.c writes them, in each order and shape that it has had."""

from __future__ import annotations

import contextlib
import random
import struct
from collections import Counter
from typing import Literal

import attrs
import pytest

from pvops_core.errors import ImageError
from pvops_core.images import load_image
from pvops_core.testing.images import ElfBuilder

BASE64 = 0xFFFFFFFF81000000
BASE32 = 0xC1000000

Order = Literal["absolute", "before", "after"]


@attrs.frozen
class Shape:
    """One way scripts/kallsyms.c has laid the tables out.

    Attributes:
        bits: word size.
        order: addresses as pointers in front (to 4.5), offsets in front (to 6.3), or offsets behind (6.4 on).
        percpu: KALLSYMS_ABSOLUTE_PERCPU.
        marker: bytes of a marker: pointer-sized to 4.19, then 4.
        sequence: kallsyms_seqs_of_names between markers and tokens (6.2, 6.3).
    """

    bits: int
    order: Order
    percpu: bool = False
    marker: int = 4
    sequence: bool = False


SHAPES = [
    Shape(64, "absolute", marker=8),
    Shape(32, "absolute"),
    Shape(64, "before", percpu=True, marker=8),
    Shape(64, "before", percpu=True),
    Shape(64, "before", percpu=True, sequence=True),
    Shape(64, "before"),
    Shape(32, "before"),
    Shape(64, "after", percpu=True),
    Shape(64, "after"),
    Shape(32, "after"),
]


def make_symbols(count: int, bits: int) -> list[tuple[str, int]]:
    """Ascending symbols: a few absolute ones in front as SMP x86_64 has them, then text."""
    rng = random.Random(count)
    words = ["init", "pv", "xen", "write", "cr3", "irq", "X9", "Z_", "lock", "0", "17", "2345", "68"]
    base = BASE64 if bits == 64 else BASE32
    names = ["_text", *("_".join(rng.choices(words, k=rng.randint(2, 6))) + f"_{n}" for n in range(count - 2))]
    # A name that needs the two-byte length, as C++-like ones do since 6.1.
    names.append("very_long_" + "%" * 200)
    symbols = [(f"T{name}", base + 16 * index) for index, name in enumerate(names)]
    return [("Apercpu_start", 0), ("Vcpu_number", 0x19160), *symbols] if bits == 64 else symbols


def compress(names: list[str]) -> tuple[list[bytes], list[bytes]]:
    """256 tokens and every name in them: characters used keep their code, frequent pairs take free ones."""
    text = [name.encode() for name in names]
    used = {byte for name in text for byte in name}
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


def tables(symbols: list[tuple[str, int]], shape: Shape) -> bytes:
    pointer = shape.bits // 8
    word = "<Q" if pointer == 8 else "<I"

    def aligned(data: bytes, to: int = pointer) -> bytes:
        return data + bytes(-len(data) % to)

    tokens, packed = compress([name for name, _ in symbols])
    names, markers = b"", b""
    for index, body in enumerate(packed):
        if index % 256 == 0:
            markers += len(names).to_bytes(shape.marker, "little")
        size = len(body)
        names += (bytes([size]) if size < 0x80 else bytes([size & 0x7F | 0x80, size >> 7])) + body
    table = b"".join(token + b"\0" for token in tokens)
    starts = [sum(len(token) + 1 for token in tokens[:code]) for code in range(256)]
    middle = aligned(struct.pack("<I", len(symbols))) + aligned(names) + aligned(markers)
    if shape.sequence:
        middle += aligned(b"".join(index.to_bytes(3, "big") for index in range(len(symbols))))
    middle += aligned(table) + aligned(struct.pack("<256H", *starts))
    if shape.order == "absolute":
        return b"".join(struct.pack(word, address) for _, address in symbols) + middle
    base = BASE64 if shape.bits == 64 else BASE32
    if shape.percpu:
        offsets = [address if address < 1 << 31 else base - 1 - address for _, address in symbols]
    else:
        offsets = [max(address, base) - base for _, address in symbols]
    relative = aligned(struct.pack(f"<{len(offsets)}i", *offsets)) + struct.pack(word, base)
    return relative + middle if shape.order == "before" else middle + relative


def kernel(symbols: list[tuple[str, int]], shape: Shape, *, junk: bytes = b"") -> bytes:
    base = BASE64 if shape.bits == 64 else BASE32
    builder = ElfBuilder(shape.bits, base=base)
    builder.text(".text", bytes(16 * len(symbols)))
    builder.section(".rodata", junk + bytes(-len(junk) % 8) + bytes(64) + tables(symbols, shape) + bytes(64))
    return builder.build()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [300, 512, 2000])
def test_every_shape(shape: Shape, count: int) -> None:
    symbols = make_symbols(count, shape.bits)
    if not shape.percpu and shape.order != "absolute":
        symbols = [(name, address) for name, address in symbols if address > 1 << 31]
    image = load_image(kernel(symbols, shape))
    assert image.symbol_table.source == "kallsyms"
    assert image.symbols == {name[1:]: address for name, address in symbols}


def test_what_only_looks_like_the_tables_is_passed_over() -> None:
    shape = SHAPES[3]
    digits = b"".join(b"%d\0" % digit for digit in range(10))
    rising = struct.pack("<40I", *range(0, 40 * 700, 700))
    symbols = make_symbols(1000, 64)
    image = load_image(kernel(symbols, shape, junk=(digits + rising) * 5))
    assert len(image.symbols) == len(symbols)


def test_no_tables_no_symbols() -> None:
    builder = ElfBuilder()
    builder.text(".text", bytes(64))
    image = load_image(builder.build())
    assert image.symbols == {}
    assert image.symbol_table.source == ""


def test_names_without_addresses_are_an_error_with_a_place() -> None:
    shape = SHAPES[3]
    symbols = make_symbols(600, 64)
    data = bytearray(kernel(symbols, shape))
    found = struct.pack("<Q", BASE64) + struct.pack("<Q", len(symbols))
    at = data.index(found)
    data[at : at + 8] = struct.pack("<Q", 0x1234)
    with pytest.raises(ImageError) as caught:
        _ = load_image(bytes(data), "broken").symbols
    assert caught.value.field == "kallsyms_names"
    assert caught.value.offset is not None


def test_damaged_tables_are_read_or_refused() -> None:
    data = kernel(make_symbols(600, 64), SHAPES[3])
    rng = random.Random(7)
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(3):
            broken[rng.randrange(0x2000, len(broken))] = rng.randrange(256)
        with contextlib.suppress(ImageError):
            _ = load_image(bytes(broken)).symbols
