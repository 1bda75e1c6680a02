from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pvops_core.errors import ImageError
from pvops_core.images import kallsyms, load_image
from pvops_core.testing.images import ElfBuilder
from pvops_core.testing.kallsyms import BASES, SHAPES, TableShape, tables

if TYPE_CHECKING:
    from pvops_core.images import KernelImage


def make_symbols(count: int, bits: int) -> list[tuple[str, int]]:
    """Ascending symbols: a few absolute ones in front as SMP x86_64 has them, then text."""
    rng = random.Random(count)
    words = ["init", "pv", "xen", "write", "cr3", "irq", "X9", "Z_", "lock", "0", "17", "2345", "68"]
    base = BASES[bits]
    names = ["_text", *("_".join(rng.choices(words, k=rng.randint(2, 6))) + f"_{n}" for n in range(count - 2))]
    # A name that needs the two-byte length, as C++-like ones do since 6.1.
    names.append("very_long_" + "%" * 200)
    symbols = [(f"T{name}", base + 16 * index) for index, name in enumerate(names)]
    return [("Apercpu_start", 0), ("Vcpu_number", 0x19160), *symbols] if bits == 64 else symbols


def kernel(symbols: list[tuple[str, int]], shape: TableShape, *, junk: bytes = b"") -> bytes:
    base = BASES[shape.bits]
    builder = ElfBuilder(shape.bits, base=base)
    builder.text(".text", bytes(16 * len(symbols)))
    before = junk + bytes(-len(junk) % 8) + bytes(64)
    address = builder.section(".padding", bytes(8)) + 0x1000
    builder.section(".rodata", before + tables(symbols, shape, address + len(before)) + bytes(64), address=address)
    return builder.build()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [300, 512, 2000])
def test_every_shape(shape: TableShape, count: int) -> None:
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
    found = struct.pack("<Q", BASES[64]) + struct.pack("<Q", len(symbols))
    at = data.index(found)
    data[at : at + 8] = struct.pack("<Q", 0x1234)
    with pytest.raises(ImageError) as caught:
        _ = load_image(bytes(data), "broken").symbols
    assert caught.value.field == "kallsyms_names"
    assert caught.value.offset is not None


def test_tokens_that_make_names_of_any_length_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kallsyms, "TEXT_LIMIT", 10_000)
    with pytest.raises(ImageError, match="characters; the most read is 10000") as caught:
        _ = load_image(kernel(make_symbols(600, 64), SHAPES[3])).symbols
    assert caught.value.field == "kallsyms_names"


def test_damaged_tables_are_read_or_refused() -> None:
    data = kernel(make_symbols(600, 64), SHAPES[3])
    rng = random.Random(7)
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(3):
            broken[rng.randrange(0x2000, len(broken))] = rng.randrange(256)
        with contextlib.suppress(ImageError):
            _ = load_image(bytes(broken)).symbols


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("record", "name"),
    [
        ("c612-native", "vmlinuz-6.12.117+deb12-cloud-amd64"),
        ("g612-xen1", "vmlinuz-6.12.117+deb12-amd64"),
        ("c72-native", "vmlinuz-7.2.13+deb14-cloud-amd64"),
    ],
)
def test_kernels_of_today(
    kernels: Callable[[str], KernelImage], oracle: Callable[[str], Mapping[str, Any]], record: str, name: str
) -> None:
    recorded, image = oracle(record), kernels(name)
    assert image.symbol_table.source == "kallsyms"
    named = {**recorded["special"], **recorded["tables"]}
    named |= {symbol: target for _op, target, symbol in recorded["ops"] if symbol}
    assert {symbol: f"{image.symbols[symbol]:#x}" for symbol in named} == named
