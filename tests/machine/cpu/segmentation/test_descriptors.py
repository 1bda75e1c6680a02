"""Descriptors read from a guest's tables: found by their selectors, or the fault that a bad selector is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.machine import GuestFault
from pvops_core.machine.cpu.segmentation.descriptors import descriptor_address, read_descriptor
from pvops_core.x86 import GP, NP
from tests.machine.conftest import DATA, GDT, KCS

if TYPE_CHECKING:
    from tests.machine.conftest import Rig

LIMIT = 0x47
"""Of the rig's GDT."""


def test_every_selector_has_a_place_in_its_table_or_is_a_fault(rig: Rig) -> None:
    for selector in range(LIMIT + 0x21):
        if selector & ~7 == 0 and not selector & 4:
            with pytest.raises(GuestFault, match="null selector") as null:
                descriptor_address(rig.cpu, selector, NP, 1)
            assert (null.value.vector, null.value.error_code) == (NP, 1)
        elif selector & 4 or selector | 7 > LIMIT:  # there is no LDT
            with pytest.raises(GuestFault, match="outside its table") as outside:
                descriptor_address(rig.cpu, selector)
            assert (outside.value.vector, outside.value.error_code) == (GP, selector & ~3)
        else:
            assert descriptor_address(rig.cpu, selector) == GDT + selector // 8 * 8


def test_a_descriptor_whose_last_byte_is_beyond_the_limit_is_none(rig: Rig) -> None:
    for limit in range(KCS, KCS + 16):
        rig.cpu.set_table("gdtr", GDT, limit)
        if limit >= KCS + 7:
            assert read_descriptor(rig.cpu, KCS).code
        else:
            with pytest.raises(GuestFault, match="outside its table"):
                read_descriptor(rig.cpu, KCS)


def test_tables_are_read_as_the_processor_reads_them(rig: Rig) -> None:
    """A table's page need not be the user's, whatever level asks."""
    rig.map(DATA, DATA, 3)
    rig.memory.set_u64(DATA + KCS, rig.memory.u64(GDT + KCS))
    rig.cpu.set_table("gdtr", DATA, LIMIT)
    rig.cpu.set_segments(3, 0x23, 0x1B)
    assert read_descriptor(rig.cpu, KCS).code
