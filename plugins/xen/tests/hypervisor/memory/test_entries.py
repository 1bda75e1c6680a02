"""Page-table entries as Xen stores them for a guest: adjusted once for good, and never more than was asked for."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pvops_xen.hypervisor.memory.entries import (
    GLOBAL,
    GUEST_KERNEL,
    PAE_L3_DISALLOW,
    PSE,
    RW,
    USER,
    P,
    adjust,
    disallowed,
    frame_of,
)

ENTRIES: Final = st.integers(0, (1 << 64) - 1)
LEVELS: Final = st.integers(1, 4)
WIDTHS: Final = st.sampled_from((32, 64))


@given(ENTRIES, LEVELS, WIDTHS)
def test_what_has_been_adjusted_stays(entry: int, level: int, bits: int) -> None:
    """A guest reads entries back, and stores them again."""
    stored = adjust(entry, level, bits)
    assert adjust(stored, level, bits) == stored


@given(ENTRIES, LEVELS, WIDTHS)
def test_nothing_is_taken_away_and_no_right_to_write_given(entry: int, level: int, bits: int) -> None:
    stored = adjust(entry, level, bits)
    assert stored & entry == entry
    assert (stored ^ entry) & ~(USER | GUEST_KERNEL | GLOBAL) == 0
    assert (stored ^ entry) & RW == 0
    assert frame_of(stored) == frame_of(entry)


@given(ENTRIES, LEVELS)
def test_a_64_bit_guests_present_entries_are_the_users(entry: int, level: int) -> None:
    stored = adjust(entry | P, level, 64)
    assert stored & USER
    if level == 1:  # exactly one of the two marks says whose page it is, but where the guest forged the kernel's
        assert bool(stored & GUEST_KERNEL) != bool(stored & GLOBAL) or entry & (GUEST_KERNEL | GLOBAL)


@given(ENTRIES, LEVELS, WIDTHS)
def test_what_is_not_present_is_the_guests_own(entry: int, level: int, bits: int) -> None:
    assert adjust(entry & ~P, level, bits) == entry & ~P


@pytest.mark.parametrize("bits", [32, 64])
def test_no_guest_maps_large_pages_nor_chooses_how_memory_is_cached(bits: int) -> None:
    assert all(disallowed(level, bits) & PSE for level in (1, 2, 3, 4))
    assert (disallowed(3, bits) == PAE_L3_DISALLOW) == (bits == 32)
    assert not any(disallowed(level, bits) & (P | RW | USER) for level in (1, 2, 3, 4))
