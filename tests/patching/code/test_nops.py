from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.images import load_image
from pvops_core.patching.code.disasm import instruction_lengths
from pvops_core.patching.code.nops import NOPS, NopKind, NopTable, kernel_nops
from pvops_core.testing.images import ElfBuilder


@pytest.mark.parametrize("kind", NopKind)
def test_every_nop_is_whole_instructions(kind: NopKind) -> None:
    bits = 64 if kind in {NopKind.MODERN_64, NopKind.P6} else 32
    for code in NOPS[kind].sequences:
        assert sum(instruction_lengths(code, bits)) == len(code)


@given(length=st.integers(0, 300), kind=st.sampled_from(NopKind))
def test_longest_nops_first(length: int, kind: NopKind) -> None:
    table = NOPS[kind]
    code = table(length)
    assert len(code) == length
    while len(code) > len(table.sequences):
        assert code.startswith(table.sequences[-1])
        code = code[len(table.sequences) :]
    assert not code or code == table.sequences[len(code) - 1]


def test_lengths_are_checked() -> None:
    with pytest.raises(ValueError, match="in order"):
        NopTable((b"\x90", b"\x90"))


def kernel_with_table(codes: list[bytes], *, tail: int) -> ElfBuilder:
    """x86_nops as the kernel links it: a null pointer, then one to the nop of each length, then another variable."""
    builder = ElfBuilder()
    builder.text(".text", bytes(16))
    bytes_at = builder.section(".rodata", b"".join(codes))
    pointers = [0, *(bytes_at + sum(map(len, codes[:index])) for index in range(len(codes))), tail, *[0] * 16]
    builder.symbol("x86_nops", builder.section(".data", struct.pack(f"<{len(pointers)}Q", *pointers)))
    return builder


@pytest.mark.parametrize("longest", [8, 11, 15])
@pytest.mark.parametrize("tail", [0, 0xFFFFFFFF81000000, 0x1234])
def test_the_kernels_own_table_is_read(longest: int, tail: int) -> None:
    codes = [bytes([0x40 + size]) * size for size in range(1, longest + 1)]
    assert kernel_nops(load_image(kernel_with_table(codes, tail=tail).build())).sequences == tuple(codes)


def test_headers_table_without_symbols() -> None:
    for bits, kind in ((64, NopKind.MODERN_64), (32, NopKind.MODERN_32)):
        builder = ElfBuilder(bits, base=0xC1000000)
        builder.text(".text", bytes(16))
        assert kernel_nops(load_image(builder.build())) == NOPS[kind]
