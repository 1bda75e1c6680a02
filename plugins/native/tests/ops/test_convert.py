"""Entries and their values are the same on bare metal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_native.ops.convert import ConvertOps

LEVELS = ("pte", "pmd", "pud", "p4d", "pgd")


@pytest.mark.parametrize("level", LEVELS)
@settings(deadline=None)
@given(entry=st.integers(0, (1 << 64) - 1))
def test_every_conversion_and_its_inverse_leave_an_entry_as_it_is(level: str, entry: int) -> None:
    ops, cpu = ConvertOps.__new__(ConvertOps), None
    value: Any = getattr(ops, f"{level}_val")(cpu, entry)
    assert value == entry
    assert getattr(ops, f"make_{level}")(cpu, value) == entry
