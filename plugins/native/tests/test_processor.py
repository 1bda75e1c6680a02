"""A processor brought into the kernel's state."""

from __future__ import annotations

import pytest
from pvops_native import processor

from pvops_core.machine import MachineKind
from pvops_core.machine.memory import PhysicalMemory


@pytest.mark.parametrize("bits", [32, 64])
def test_a_flat_gdt_has_code_and_data_of_level_0_up_to_its_limit(bits: int) -> None:
    memory = PhysicalMemory(1 << 16)
    limit = processor.flat_gdt(memory, 0x1000, bits)
    code = memory.u64(0x1000 + processor.CODE_SELECTOR[bits])
    data = memory.u64(0x1000 + processor.CODE_SELECTOR[bits] + 8)
    assert limit == processor.CODE_SELECTOR[bits] + 15
    for descriptor, executable in ((code, 1), (data, 0)):
        assert descriptor >> 47 & 1, "present"
        assert not descriptor >> 45 & 3, "level 0"
        assert descriptor >> 43 & 1 == executable
        assert not descriptor & 0xFF0000FFFFFF0000, "base 0"
    assert code >> 53 & 1 == (bits == 64), "L"


@pytest.mark.parametrize("kind", list(MachineKind))
def test_the_first_state_has_pae_where_entries_are_wide(kind: MachineKind) -> None:
    state = processor.first_state(kind, 0x5000, 0xC0001000, 0x6F)
    assert bool(state.cr4 & processor.CR4_PAE) is (kind is not MachineKind.I386)
    assert (state.root, state.gdt, state.gdt_limit) == (0x5000, 0xC0001000, 0x6F)
