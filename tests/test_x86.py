"""The architecture's numbers: no two of a register are one bit."""

from __future__ import annotations

from itertools import combinations

import pytest

from pvops_core import x86


@pytest.mark.parametrize("prefix", ["CR0_", "CR4_", "EFER_", "FLAG_"])
def test_bits_of_a_register_are_apart(prefix: str) -> None:
    bits = {name: value for name, value in vars(x86).items() if name.startswith(prefix)}
    assert len(bits) > 3
    assert not [pair for pair in combinations(bits, 2) if bits[pair[0]] & bits[pair[1]]]


def test_an_entry_s_flags_leave_the_address_alone() -> None:
    flags = (x86.PRESENT, x86.WRITABLE, x86.USER, x86.ACCESSED, x86.DIRTY, x86.LARGE, x86.GLOBAL, x86.NO_EXECUTE)
    assert sum(flags).bit_count() == len(flags)
    assert not sum(flags) & x86.ADDRESS
    assert x86.ADDRESS & -x86.ADDRESS == x86.PAGE


def test_vectors_are_the_manual_s() -> None:
    assert (x86.DE, x86.DF, x86.TS, x86.PF, x86.MF, x86.XM) == (0, 8, 10, 14, 16, 19)
