"""Call frame information as another reader of DWARF has it."""

from __future__ import annotations

from io import BytesIO

import pytest
from elftools.dwarf.callframe import CallFrameInfo
from elftools.dwarf.structs import DWARFStructs
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.guest.debugfile import cfi


def entries(section: bytes) -> list:  # type: ignore[type-arg]
    structs = DWARFStructs(little_endian=True, dwarf_format=32, address_size=8)
    return CallFrameInfo(BytesIO(section), len(section), 0, structs, for_eh_frame=False).get_entries()


@given(st.integers(0, 1 << 64))
def test_numbers_without_a_sign(value: int) -> None:
    made = cfi.uleb(value)
    assert sum((byte & 0x7F) << 7 * place for place, byte in enumerate(made)) == value
    assert [byte >> 7 for byte in made] == [1] * (len(made) - 1) + [0]


@given(st.integers(-(1 << 63), 1 << 63))
def test_numbers_with_one(value: int) -> None:
    made = cfi.sleb(value)
    read = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(made))
    assert read - (1 << 7 * len(made) if made[-1] & 0x40 else 0) == value


@pytest.mark.parametrize(
    ("made", "opcode", "arguments"),
    [
        (cfi.frame_at(cfi.RSP, 200), 0xC, [7, 200]),
        (cfi.frame_at(cfi.RBP, -8), 0xF, [[0x76, 0x78]]),
        (cfi.saved(cfi.RBP, -16), 0x11, [6, 2]),
        (cfi.saved(cfi.RSP, 152), 0x11, [7, -19]),
        (cfi.saved_at(cfi.RBP, cfi.address_at(cfi.RBP, 8)), 0x10, [6, [0x76, 8]]),
        (cfi.same(cfi.RBP), 0x8, [6]),
        (cfi.lost(cfi.RETURN), 0x7, [16]),
        (cfi.advance(1), 0x40, [1]),
        (cfi.advance(63), 0x40, [63]),
        (cfi.advance(64), 0x2, [64]),
        (cfi.advance(256), 0x3, [256]),
        (cfi.advance(65536), 0x4, [65536]),
        (cfi.advance((1 << 32) - 1), 0x4, [(1 << 32) - 1]),
    ],
)
def test_an_instruction(made: bytes, opcode: int, arguments: list[object]) -> None:
    common = cfi.common_entry(made, interrupted=False)
    section = common + cfi.function_entry(0, 0xFFFFFFFF81000000, 0x20, made, interrupted=False)
    assert len(common) % 8 == len(section) % 8 == 0
    first, second = entries(section)
    for entry in (first, second):
        instruction = entry.instructions[0]
        assert (instruction.opcode, instruction.args) == (opcode, arguments)
        assert {each.opcode for each in entry.instructions[1:]} <= {0}
    assert (second["initial_location"], second["address_range"]) == (0xFFFFFFFF81000000, 0x20)


@pytest.mark.parametrize(("interrupted", "augmentation"), [(True, b"zS"), (False, b"")])
def test_whether_frames_were_interrupted_is_said(augmentation: bytes, *, interrupted: bool) -> None:
    (entry,) = entries(cfi.common_entry(b"", interrupted=interrupted))
    assert entry["augmentation"] == augmentation
    assert (entry["code_alignment_factor"], entry["data_alignment_factor"]) == (1, -8)
    assert entry["return_address_register"] == 16
