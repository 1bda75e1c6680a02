"""What arrays in the guest's memory tell hypercalls, as observers are told it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.abi import Hypercall, MmuExt

if TYPE_CHECKING:
    from conftest import Bench

    from pvops_core.backends import HypercallMade

PAGE = 0x111


@pytest.fixture
def made(bench: Bench) -> list[HypercallMade]:
    seen: list[HypercallMade] = []
    bench.platform.observe(seen.append)
    return seen


def test_updates_of_page_tables_in_their_order(bench: Bench, made: list[HypercallMade]) -> None:
    address = bench.write(PAGE, struct.pack("<4Q", 0x1000, 1, 0x2008, 2))
    bench.call(Hypercall.MMU_UPDATE, address, 2, 0, 0x7FF0)
    assert made[0].operations == ((0x1000, 1), (0x2008, 2))


def test_of_an_operation_the_arguments_that_its_command_has(bench: Bench, made: list[HypercallMade]) -> None:
    mask = bench.write(PAGE, bench.words(0xFFFF_FFF1), 0x800)
    given = [(MmuExt.TLB_FLUSH_LOCAL, 7, 8), (MmuExt.INVLPG_LOCAL, 0x5000, 8), (MmuExt.SET_LDT, 0, 0)]
    given += [(MmuExt.TLB_FLUSH_MULTI, 7, mask), (MmuExt.INVLPG_MULTI, 0x5000, mask)]
    address = bench.write(PAGE, b"".join(bench.words(*each) for each in given))
    bench.call(Hypercall.MMUEXT_OP, address, len(given), 0, 0x7FF0)
    assert made[0].operations == ((6,), (7, 0x5000), (13, 0, 0), (8, 1), (9, 0x5000, 1))


def test_a_command_that_nobody_knows_may_have_both(bench: Bench, made: list[HypercallMade]) -> None:
    bench.call(Hypercall.MMUEXT_OP, bench.write(PAGE, bench.words(99, 5, 6)), 1, 0, 0x7FF0)
    assert made[0].operations == ((99, 5, 6),)


def test_the_table_of_traps_to_its_end(bench: Bench, made: list[HypercallMade]) -> None:
    layout = "<BBH4xQ" if bench.word == 8 else "<BBHI"
    traps = [(3, 3, 0xE033, 0x1000), (13, 0, 0xE033, 0x2000)]
    address = bench.write(PAGE, b"".join(struct.pack(layout, *each) for each in (*traps, (0, 0, 0, 0), (1, 1, 1, 1))))
    bench.call(Hypercall.SET_TRAP_TABLE, address)
    bench.call(Hypercall.SET_TRAP_TABLE, 0)
    assert [each.operations for each in made] == [tuple(traps), ()]


def test_frames_of_a_gdt(bench: Bench, made: list[HypercallMade]) -> None:
    bench.call(Hypercall.SET_GDT, bench.write(PAGE, bench.words(5, 6, 7)), 513)
    assert made[0].operations == ((5,), (6,))


@pytest.mark.parametrize("number", [Hypercall.MMU_UPDATE, Hypercall.MMUEXT_OP, Hypercall.SET_TRAP_TABLE])
@pytest.mark.parametrize("count", [1, 1 << 20, 0x8000_0001, 0xFFFF_FFFF])
def test_what_cannot_be_read_tells_nothing(bench: Bench, made: list[HypercallMade], number: int, count: int) -> None:
    bench.call(number, 0x1000, count, 0, 0x7FF0)
    assert made[-1].operations == ()


def test_others_take_no_array(bench: Bench, made: list[HypercallMade]) -> None:
    bench.call(Hypercall.FPU_TASKSWITCH, 1)
    assert made[0].operations == ()
