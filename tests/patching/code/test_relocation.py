from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from pvops_core.patching.code.nops import NOPS, NopKind
from pvops_core.patching.code.relocation import BRANCH_SIZE, relocate_replacement

nops = NOPS[NopKind.MODERN_64]
distances = st.integers(-(1 << 30), 1 << 30)


def target(code: bytes, at: int) -> int:
    """Where a branch at an address leads, by the manual's definition."""
    if code[0] == 0xEB:
        return at + 2 + int.from_bytes(code[1:2], "little", signed=True)
    return at + 5 + int.from_bytes(code[1:5], "little", signed=True)


@given(opcode=st.sampled_from([0xE8, 0xE9]), distance=distances, move=st.one_of(distances, st.integers(-300, 300)))
def test_a_moved_branch_keeps_its_target(opcode: int, distance: int, move: int) -> None:
    source, destination = 0xFFFFFFFF83000000, 0xFFFFFFFF83000000 + move
    code = bytes([opcode]) + distance.to_bytes(4, "little", signed=True)
    moved = relocate_replacement(code, source, destination, nops)
    assert len(moved) == BRANCH_SIZE
    assert target(moved, destination) == target(code, source)


@given(distance=st.integers(-400, 400))
@example(0)
@example(1)
@example(129)
def test_only_short_forward_jumps_get_the_short_form(distance: int) -> None:
    here = 0x1000000
    code = b"\xe9" + (distance - 5).to_bytes(4, "little", signed=True)
    moved = relocate_replacement(code, here, here, nops)
    assert (moved[0] == 0xEB) == (0 <= distance <= 129)
    assert target(moved, here) == here + distance
    if moved[0] == 0xEB:
        assert moved[2:] == nops(3)


@given(code=st.binary(max_size=12).filter(lambda code: len(code) != 5 or code[0] not in {0xE8, 0xE9}))
def test_anything_else_is_copied(code: bytes) -> None:
    assert relocate_replacement(code, 0x1000, 0x2000, nops) == code
