"""Tables that are freed after a flush."""

from __future__ import annotations

from rig import SCRATCH, Rig


def test_batch_of_freed_tables(wide: Rig) -> None:
    gather = wide.at(SCRATCH)
    for page in (0x1000, 0x2000):
        wide.ops.tlb_remove_table(wide.cpu, gather, page)
    assert [wide.cpu.u64(gather + 8 * n) for n in (1, 2, 3)] == [2, 0x1000, 0x2000]
    assert wide.ops.pgd_alloc(wide.cpu) == 0
