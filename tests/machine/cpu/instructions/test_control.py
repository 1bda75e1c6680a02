"""Control registers: each bit that is refused is refused with nothing changed, each other is what is read back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from pvops_core.machine import GuestFault, MachineKind
from pvops_core.machine.cpu.memory.paging import PHYSICAL_BITS
from pvops_core.x86 import CR4_PAE, GP
from tests.machine.conftest import DATA

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.machine.conftest import Rig

PG, CD, NW, PE = 1 << 31, 1 << 30, 1 << 29, 1


def refused(register: Callable[[], int], move: Callable[[], None]) -> bool:
    before = register()
    try:
        move()
    except GuestFault as raised:
        fault = raised
    else:
        return False
    assert (fault.vector, fault.error_code, register()) == (GP, 0, before)
    return True


@pytest.mark.parametrize("flipped", range(40))
def test_cr4_takes_what_cpuid_offers(rig: Rig, flipped: int) -> None:
    if rig.kind is MachineKind.I386 and 1 << flipped == CR4_PAE:
        rig.memory.write(rig.root, bytes(32))  # what the move then loads as the table's first four entries
    value = rig.cpu.cr4 ^ 1 << flipped
    found = refused(lambda: rig.cpu.cr4, lambda: rig.cpu.insn.mov_to_cr(4, value))
    assert found == (flipped > 10 or (rig.long and flipped == CR4_PAE.bit_length() - 1))
    if not found:
        assert rig.cpu.insn.mov_from_cr(4) == value


@pytest.mark.parametrize("value", [PG, PG | PE | NW, PE | NW, 1 << 32, PG | PE, PG | PE | CD, PG | PE | CD | NW])
def test_cr0_takes_no_contradictions(rig: Rig, value: int) -> None:
    """SDM volume 3, 2.5: PG without PE, NW without CD."""
    found = refused(lambda: rig.cpu.cr0, lambda: rig.cpu.insn.mov_to_cr(0, value))
    assert found == (bool(value & PG and not value & PE) or bool(value & NW and not value & CD) or value >> 32 != 0)


def test_cr3_is_an_address_that_the_processor_has(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.X86_64)
    for bit in range(12, 64):
        found = refused(lambda: rig.cpu.cr3, partial(rig.cpu.insn.mov_to_cr, 3, rig.root | 1 << bit))
        assert found == (bit >= PHYSICAL_BITS)
        rig.cpu.insn.mov_to_cr(3, rig.root)


@pytest.mark.parametrize("number", range(4))
def test_a_move_to_cr3_loads_four_entries_that_must_be_right(make_rig: Callable[..., Rig], number: int) -> None:
    """SDM volume 3, 4.4.1 and table 4-8: only bits 0, 3, 4 and 9 to 11, and an address, may be set in one."""
    rig = make_rig(MachineKind.PAE)
    rig.memory.write(DATA, rig.memory.read(rig.root, 32))
    for bit in range(1, 64):
        for present in (0, 1):
            rig.memory.set_u64(DATA + 8 * number, 1 << bit | present)
            found = refused(lambda: rig.cpu.cr3, partial(rig.cpu.insn.mov_to_cr, 3, DATA))
            assert found == (present and (bit in {1, 2, 5, 6, 7, 8} or bit >= PHYSICAL_BITS))
            rig.cpu.insn.mov_to_cr(3, rig.root)
