"""Which ops are meant: by name, by path, by patterns; whole groups where some go together."""

from __future__ import annotations

from fnmatch import fnmatchcase as fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.errors import PvopsError, UsageError
from pvops_core.ops import LAYOUTS
from pvops_core.switchboard.choosing import chosen

NAMES = sorted(LAYOUTS)


@given(st.sampled_from(NAMES), st.data())
def test_every_slot_is_meant_by_its_name_and_by_its_path(name: str, data: st.DataObject) -> None:
    layout = LAYOUTS[name]
    slots = data.draw(st.lists(st.sampled_from(layout.slots), min_size=1, unique=True))
    by_name = chosen(layout, [slot.op.name for slot in slots])
    assert by_name == tuple(slot for slot in layout.slots if slot in slots)
    assert chosen(layout, [slot.path for slot in slots]) == by_name


@pytest.mark.parametrize("name", NAMES)
def test_patterns(name: str) -> None:
    layout = LAYOUTS[name]
    assert chosen(layout, []) == chosen(layout, ["*"]) == layout.slots
    mmu = {slot for slot in layout.slots if fnmatch(slot.path, "mmu.*") or slot.op.group == "mmu"}
    assert set(chosen(layout, ["mmu.*"])) == mmu
    assert set(chosen(layout, ["*pte*"])) == {
        slot for slot in layout.slots if "pte" in slot.op.name or "pte" in slot.path
    }
    assert set(chosen(layout, ["mmu.*", "*pte*"])) == mmu | set(chosen(layout, ["*pte*"]))


def test_what_goes_together_is_meant_together() -> None:
    layout, group = LAYOUTS["6.1-64"], frozenset({"save_fl", "irq_enable"})
    assert {slot.op.name for slot in chosen(layout, ["save_fl"], [group])} == group
    assert {slot.op.name for slot in chosen(layout, ["write_cr3"], [group])} == {"write_cr3"}


@pytest.mark.parametrize("pattern", ["zz*", "irq.zz*", "mmu.*.nothing", "irg_enable", "mmu.write_cr33"])
def test_what_means_none_is_an_error_that_helps(pattern: str) -> None:
    with pytest.raises(PvopsError) as refused:
        chosen(LAYOUTS["6.1-64"], ["irq.*", pattern])
    assert pattern in str(refused.value)
    if "*" in pattern:
        assert isinstance(refused.value, UsageError)
        assert "irq.*" in str(refused.value)
