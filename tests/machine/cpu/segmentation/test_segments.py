"""Descriptors: their fields, and what may be accessed through one."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.machine.cpu.segmentation.segments import Descriptor, allows, flat

WORDS: Final = st.integers(0, 0xFFFF_FFFF)
CODE, WRITABLE, DOWN, BIG, PRESENT = 1 << 11, 1 << 9, 1 << 10, 1 << 22, 1 << 15


@given(st.integers(0, 0xFFFF_FFFF), st.integers(0, 0xF_FFFF), st.booleans(), WORDS)
def test_base_and_limit_are_put_together_of_their_pieces(base: int, limit: int, pages: bool, rest: int) -> None:  # noqa: FBT001
    """SDM volume 3, figure 3-8: limit 15:0, base 15:0; base 23:16, …, limit 19:16, …, base 31:24."""
    other = rest & 0x0070_FF00
    high = base >> 16 & 0xFF | other | limit & 0xF_0000 | pages << 23 | base & 0xFF00_0000
    found = Descriptor.of(high << 32 | (base & 0xFFFF) << 16 | limit & 0xFFFF)
    assert found.base == base
    assert found.limit == (limit * 0x1000 + 0xFFF if pages else limit)


@given(WORDS, WORDS)
def test_what_a_descriptor_is_follows_from_its_type_alone(low: int, high: int) -> None:
    found = Descriptor(low, high)
    assert found.type == (high >> 8) % 16
    assert found.dpl == (high >> 13) % 4
    assert not (found.system and (found.code or found.writable_data))
    assert not (found.code and found.writable_data)
    assert not found.conforming or found.code
    assert not found.long or found.code


@given(
    limit=st.integers(0, 0xFFFF_FFFF),
    kind=st.sampled_from((0, CODE)),
    bits=st.sets(st.sampled_from((WRITABLE, DOWN, BIG))),
    offset=st.integers(0, 0xFFFF_FFFF),
    size=st.sampled_from((1, 2, 4, 8)),
    write=st.booleans(),
)
def test_an_access_is_allowed_where_each_of_its_bytes_is(
    limit: int, kind: int, bits: set[int], offset: int, size: int, *, write: bool
) -> None:
    """SDM volume 3, 5.3 and 3.4.5.1, byte by byte."""
    high = PRESENT | kind | sum(bits)
    typed = (WRITABLE in bits and not write) if kind else (WRITABLE in bits or not write)
    most = 0xFFFF_FFFF if BIG in bits else 0xFFFF
    expands = DOWN in bits and not kind
    inside = all(limit < at <= most if expands else at <= limit for at in range(offset, offset + size))
    assert allows(limit, high, offset, size, write=write) == (typed and inside)


@given(st.integers(0, 0xFFFF_FFFF), WORDS, st.integers(0, 0xFFFF_FFFF), st.booleans())
def test_nothing_is_accessed_through_what_is_not_present(limit: int, high: int, offset: int, write: bool) -> None:  # noqa: FBT001
    assert not allows(limit, high & ~PRESENT, offset, 1, write=write)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("cpl", range(4))
def test_a_flat_segment_reaches_everything(bits: int, cpl: int) -> None:
    code, data = flat(cpl, code=True, bits=bits), flat(cpl, code=False, bits=bits)
    assert (code.code, code.long, code.big) == (True, bits == 64, bits == 32)
    assert data.writable_data
    for each in (code, data):
        assert (each.base, each.limit, each.dpl, each.present) == (0, 0xFFFF_FFFF, cpl, True)
