"""Page tables while a kernel starts."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from pvops_core.machine import PageFault

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.ops_rig import TARGET, ops_of


def test_early_entries_keep_tables_read_only(bench: Bench) -> None:
    ops = ops_of(bench)
    bench.write(0x111, struct.pack("<QQ", TARGET, TARGET + 1))
    ops.kept.protected.add(TARGET + 1)
    place = bench.write(0x112, bytes(32))
    for slot, pfn in enumerate((TARGET, TARGET + 1, TARGET + 2)):
        ops.set_pte(bench.cpu, place + 8 * slot, ops.make_pte(bench.cpu, pfn << 12 | 0x63))
    assert [bench.cpu.u64(place + 8 * slot) >> 1 & 1 for slot in range(3)] == [0, 0, 1]


def test_pagetable_reserve_gives_the_rest_back(bench: Bench) -> None:
    ops = ops_of(bench)
    bench.write(0x111, struct.pack("<QQ", TARGET, TARGET + 4))
    for pfn in range(TARGET, TARGET + 4):
        ops.tables.protect(bench.cpu, pfn, writable=False)
    ops.pagetable_reserve(bench.cpu, TARGET << 12, (TARGET + 2) << 12)
    writable = []
    for pfn in range(TARGET, TARGET + 4):
        try:
            bench.cpu.walk(bench.va(pfn), write=True)
        except PageFault:
            writable.append(False)
        else:
            writable.append(True)
    assert writable == [False, False, True, True]


def test_early_write_cr3_makes_way_for_the_late_one(bench64: Bench) -> None:
    switches: list[str] = []
    ops = ops_of(bench64, switches)
    ops.write_cr3(bench64.cpu, 0x200 << 12)
    assert switches == ["write_cr3:xen_write_cr3:xen_write_cr3_init"]
    with pytest.raises(PageFault) as caught:
        ops.xen_write_cr3(bench64.cpu, 0x200 << 12)
    assert caught.value.address == 0xFFFFEA0000000000 + 0x200 * 64 + 0x28
