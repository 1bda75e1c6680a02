"""The two forms of page tables."""

from __future__ import annotations

import pytest
from pvops_lguest.host.paging import THREE_LEVELS, TWO_LEVELS, TableForm, paging_of

from pvops_core.machine import MachineKind


@pytest.mark.parametrize("form", [TWO_LEVELS, THREE_LEVELS])
def test_the_levels_divide_all_addresses_without_a_rest(form: TableForm) -> None:
    span = 1 << 32
    for level in form.uppers:
        assert level.count << level.shift == span
        span = 1 << level.shift
    assert form.entries * 4096 == span == form.reach


@pytest.mark.parametrize("form", [TWO_LEVELS, THREE_LEVELS])
def test_the_switcher_has_the_last_table_to_itself(form: TableForm) -> None:
    assert form.switcher + form.reach == 1 << 32
    assert form.reserved == form.reach
    assert form.frame & 0xFFF == 0


def test_a_machine_with_wide_entries_has_three_levels() -> None:
    assert paging_of(MachineKind.PAE) is THREE_LEVELS
    assert paging_of(MachineKind.I386) is TWO_LEVELS
