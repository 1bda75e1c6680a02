"""How kernels since 6.5 fit a replacement into its place."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.errors import PatchError
from pvops_core.images import load_image
from pvops_core.ops import LAYOUTS
from pvops_core.patching.code.disasm import encodings
from pvops_core.patching.code.nops import NOPS, NopKind, NopTable
from pvops_core.patching.code.padding import Padding, Relocating, kernel_padding
from pvops_core.testing.kernels import SmallKernel

LONGEST = (  # BYTES_NOP9 … 11 of asm/nops.h since 6.3
    "66 0f 1f 84 00 00 00 00 00",
    "66 2e 0f 1f 84 00 00 00 00 00",
    "66 66 2e 0f 1f 84 00 00 00 00 00",
)
NOPS64 = NopTable((*NOPS[NopKind.MODERN_64].sequences, *(bytes.fromhex(code) for code in LONGEST)))
WAY = Relocating(NOPS64, 64)
SOURCE, PLACE = 0xFFFFFFFF83000000, 0xFFFFFFFF81000000


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("fa 90 90 90 90 90", "fa 0f 1f 44 00 00"),
        ("e8 11 22 33 44 90", "e8 11 22 33 44 90"),  # a single nop stays
        ("e8 90 90 90 90 90", "e8 90 90 90 90 90"),  # the nops are the call's distance
        ("66 90 0f 1f 00 90", "66 0f 1f 44 00 00"),  # nops of any length are joined
        ("f3 90 90 90", "f3 90 66 90"),  # pause is none
        ("90 90 c3 90 90 90", "66 90 c3 0f 1f 00"),
        ("0f 01 c6 90 90", "0f 01 c6 66 90"),  # wrmsrns, which the disassembler does not know
        ("f3 0f 01 c6 90 90", "f3 0f 01 c6 66 90"),
        ("06 90 90", "06 90 90"),  # no instruction in 64 bits: the kernel stops there
        ("90 90 06 90 90", "66 90 06 90 90"),
        ("90 " * 11, LONGEST[2]),
        ("90 " * 12, "eb 0a " + "cc " * 10),
        ("90 " * 127, "eb 7d " + "cc " * 125),
        ("90 " * 128, "e9 7b 00 00 00 " + "cc " * 123),
        ("90 " * 200, "e9 c3 00 00 00 " + "cc " * 195),
    ],
)
def test_nops_are_joined(before: str, after: str) -> None:
    assert WAY.optimize(bytes.fromhex(before)) == bytes.fromhex(after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("eb 03 90 90 90", "0f 1f 44 00 00"),
        ("fa e9 03 00 00 00 90 0f 1f 00 90", "fa e9 03 00 00 00 0f 1f 44 00 00"),  # leads into the nops
        ("fa e9 03 00 00 00 66 90 90 c3", "fa 0f 1f 84 00 00 00 00 00 c3"),
        ("eb 02 90 90 90", "eb 02 0f 1f 00"),
        ("eb 04 fa 90 90 90", "eb 04 fa 0f 1f 00"),  # something lies between
        ("eb 00 c3", "eb 00 c3"),
    ],
)
def test_a_jump_to_the_end_of_nops_was_one_of_them(before: str, after: str) -> None:
    code = bytes.fromhex(before)
    assert Relocating(NOPS64, 64, absorbs=True).optimize(code) == bytes.fromhex(after)
    assert (WAY.optimize(code) == bytes.fromhex(after)) == ("eb 03" not in before and "66 90" not in before)


def rel32(opcode: str, target: int, at: int) -> bytes:
    code = bytes.fromhex(opcode)
    return code + struct.pack("<i", target - at - len(code) - 4)


@pytest.mark.parametrize("opcode", ["e8", "e9", "0f 84", "48 8b 05", "ff 15", "2e e8"])
def test_what_is_relative_keeps_its_target_wherever_it_stands(opcode: str) -> None:
    target = SOURCE + 0x123456
    code = b"\x90" + rel32(opcode, target, SOURCE + 1)
    assert WAY.fill(code, SOURCE, PLACE, 12) == b"\x90" + rel32(opcode, target, PLACE + 1) + NOPS64(11 - len(code) + 1)


@pytest.mark.parametrize(
    ("distance", "made"),
    [
        (2, "eb 00 cc cc cc"),
        (129, "eb 7f cc cc cc"),
        (130, "e9 7d 00 00 00"),
        (-126, "eb 80 cc cc cc"),
        (-127, "e9 7c ff ff ff"),
    ],
)
def test_a_jump_becomes_short_in_both_directions(distance: int, made: str) -> None:
    assert WAY.fill(rel32("e9", PLACE + distance, SOURCE), SOURCE, PLACE, 5) == bytes.fromhex(made)


def test_a_branch_within_the_replacement_stays() -> None:
    code = bytes.fromhex("74 02 0f 01 d0 eb fb 75 00")
    assert WAY.fill(code, SOURCE, PLACE, 9) == code


def test_a_short_branch_that_would_have_to_lead_further_is_refused() -> None:
    with pytest.raises(PatchError, match="distance of 1 bytes"):
        WAY.fill(bytes.fromhex("74 70"), SOURCE, PLACE, 2)
    with pytest.raises(PatchError, match="distance of 4 bytes"):
        WAY.fill(rel32("e8", SOURCE + 0x1000, SOURCE), SOURCE, SOURCE - (1 << 33), 5)


def test_a_lone_operand_that_is_not_relative_in_32_bits() -> None:
    code = bytes.fromhex("8b 05 00 10 00 c1")  # mov eax, [0xc1001000]
    assert Relocating(NOPS[NopKind.MODERN_32], 32).fill(code, 0xC2000000, 0xC1000000, 6) == code


@given(st.binary(min_size=1, max_size=20), st.integers(0, 12), st.sampled_from([32, 64]))
def test_whatever_is_in_a_place_its_length_stays(code: bytes, more: int, bits: int) -> None:
    way = Relocating(NOPS64, bits)
    assert len(way.optimize(code)) == len(code)
    assert sum(each.size for each in encodings(code, bits)) <= len(code)
    try:
        made = way.fill(code, SOURCE, PLACE, len(code) + more)
    except PatchError:
        return
    assert len(made) == len(code) + more
    assert way.optimize(made) == made


@given(st.lists(st.sampled_from(["90", "66 90", "0f 1f 00", "fa", "c3", "48 89 f8"]), min_size=1, max_size=12))
def test_joining_nops_changes_nothing_else(pieces: list[str]) -> None:
    def rest(code: bytes) -> list[bytes]:
        found, at = [], 0
        for each in encodings(code, 64):
            piece, at = code[at : at + each.size], at + each.size
            found += [] if each.nop or piece[:1] in {b"\xeb", b"\xcc"} else [piece]
        return found

    code = bytes.fromhex("".join(pieces))
    made = WAY.optimize(code)
    assert len(made) == len(code)
    assert rest(made) == rest(code)


def test_a_kernel_says_by_its_symbols_which_way_it_has() -> None:
    def way(*names: str) -> Padding | Relocating:
        builder = SmallKernel(LAYOUTS["6.1-64"]).builder()
        for name in names:
            builder.symbol(name, 0xFFFFFFFF81000000)
        found = kernel_padding(load_image(builder.build()))
        assert isinstance(found, Padding | Relocating)
        return found

    assert isinstance(way(), Padding)
    assert isinstance(way("apply_relocation"), Relocating)
    assert isinstance(way("text_poke_apply_relocation"), Relocating)
    young, old = way("apply_relocation"), way("apply_relocation", "__optimize_nops.isra.0")
    assert isinstance(young, Relocating)
    assert isinstance(old, Relocating)
    assert (young.absorbs, old.absorbs) == (False, True)
