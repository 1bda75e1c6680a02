"""Widths of the C types that ops take."""

from __future__ import annotations

import pytest

from pvops_core.kinds import MachineKind
from pvops_core.ops import LAYOUTS
from pvops_core.ops.ctypes import CType

NAMES = sorted({arg.ctype.name for layout in LAYOUTS.values() for slot in layout.slots for arg in slot.op.args})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", list(MachineKind))
def test_a_type_is_a_whole_number_of_bytes_and_a_pointer_is_as_wide_as_the_machine(
    name: str, kind: MachineKind
) -> None:
    ctype = CType(name)
    assert ctype.bits(kind) in {8, 16, 32, 64}
    if ctype.pointer or ctype.name in {"long", "unsigned long"}:
        assert ctype.bits(kind) == kind.bits


@pytest.mark.parametrize("name", ["pte_t", "pgd_t", "pteval_t"])
def test_a_table_s_entry_is_as_wide_as_the_table_s_entries(name: str) -> None:
    assert {kind: CType(name).bits(kind) for kind in MachineKind} == {kind: 8 * kind.entry_size for kind in MachineKind}


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="not known"):
        CType("struct page")
