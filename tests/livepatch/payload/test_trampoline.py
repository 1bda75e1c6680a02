"""The bytes that turn a function into its replacement."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.kinds import MachineKind
from pvops_core.livepatch.errors import LivepatchError
from pvops_core.livepatch.payload.model import OPAQUE_SIZE
from pvops_core.livepatch.payload.trampoline import ENDBR64, JUMP_SIZE, code_for, offset_of
from pvops_core.patching.code.disasm import instruction_lengths

TOP = 0xFFFF_FFFF_8000_0000


@given(old=st.integers(TOP, TOP + (1 << 30)), new=st.integers(TOP - (1 << 32), TOP + (1 << 31) - 1), tag=st.booleans())
def test_a_jump_leads_to_the_replacement_or_is_refused(old: int, new: int, *, tag: bool) -> None:
    offset = offset_of(MachineKind.X86_64, ENDBR64 if tag else b"\x90" * 4, new)
    assert offset == (4 if tag else 0)
    distance = new - (old + offset + JUMP_SIZE)
    if -(1 << 31) <= distance < 1 << 31:
        code = code_for(MachineKind.X86_64, old, 64, offset, new, 0)
        assert code[0] == 0xE9
        assert old + offset + len(code) + int.from_bytes(code[1:], "little", signed=True) == new
    else:
        with pytest.raises(LivepatchError) as caught:
            code_for(MachineKind.X86_64, old, 64, offset, new, 0)
        assert caught.value.errno == errno.EOVERFLOW


@given(old=st.integers(1, (1 << 32) - 1), new=st.integers(1, (1 << 32) - 1))
def test_on_32_bits_everything_is_in_reach(old: int, new: int) -> None:
    code = code_for(MachineKind.PAE, old, 64, offset_of(MachineKind.PAE, ENDBR64, new), new, 0)
    assert old + 5 + int.from_bytes(code[1:], "little") & 0xFFFFFFFF == new


@pytest.mark.parametrize("kind", [MachineKind.I386, MachineKind.X86_64])
@pytest.mark.parametrize("size", range(1, OPAQUE_SIZE + 1))
def test_nops_are_whole_instructions_of_that_many_bytes(kind: MachineKind, size: int) -> None:
    code = code_for(kind, 0x1000, 64, 0, 0, size)
    assert len(code) == size == sum(instruction_lengths(code, kind.bits))


@pytest.mark.parametrize(
    ("old_size", "new", "size"), [(0, 0x2000, 0), (4, 0x2000, 0), (64, 0, 32), (8, 0, 9), (8, 0, 0)]
)
def test_what_does_not_fit_is_refused(old_size: int, new: int, size: int) -> None:
    with pytest.raises(LivepatchError):
        code_for(MachineKind.X86_64, 0x1000, old_size, 0, new, size)
