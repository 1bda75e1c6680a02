"""What Xen refuses, with its error codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.abi import EBUSY, EINVAL, ENOSYS, EPERM, ESRCH, MmuExt
from pvops_xen.hypervisor.frames import FrameType

if TYPE_CHECKING:
    from conftest import Bench

ROOT = 0x200
SPARE = 0x300
PAGE = 0x63
READ_ONLY = 0x61


def leaf_table(bench: Bench) -> int:
    """Pseudo-physical frame of one of the builder's L1 tables."""
    hv = bench.platform.hv
    tables = bench.platform.initial_tables
    assert tables is not None
    return next(
        pfn
        for pfn in range(tables.first_pfn, tables.first_pfn + tables.count)
        if hv.frames.in_use_as(hv.domain.p2m[pfn]) == FrameType.L1
    )


def test_a_table_cannot_be_mapped_writable(bench: Bench) -> None:
    assert bench.set_mapping(leaf_table(bench), writable=True) == -EBUSY
    assert bench.set_mapping(leaf_table(bench), writable=False) == 0


def test_a_frame_that_is_mapped_writable_cannot_become_a_table(bench: Bench) -> None:
    assert bench.mmuext(MmuExt.PIN_L1_TABLE, bench.mfn(SPARE)) == -EINVAL
    assert bench.set_mapping(SPARE, writable=False) == 0
    assert bench.mmuext(MmuExt.PIN_L1_TABLE, bench.mfn(SPARE)) == 0


def test_double_pin_and_unpin_of_the_unpinned(bench: Bench) -> None:
    bench.set_mapping(SPARE, writable=False)
    mfn = bench.mfn(SPARE)
    assert bench.mmuext(MmuExt.UNPIN_TABLE, mfn) == -EINVAL
    assert bench.mmuext(MmuExt.PIN_L1_TABLE, mfn) == 0
    assert bench.mmuext(MmuExt.PIN_L1_TABLE, mfn) == -EINVAL
    assert bench.mmuext(MmuExt.UNPIN_TABLE, mfn) == 0
    assert bench.mmuext(MmuExt.UNPIN_TABLE, mfn) == -EINVAL
    assert bench.set_mapping(SPARE, writable=True) == 0


def test_a_foreign_frame_is_refused(bench: Bench) -> None:
    xens = bench.platform.hv.m2p >> 12
    assert bench.mmuext(MmuExt.PIN_L1_TABLE, xens) == -EINVAL
    table = bench.mfn(leaf_table(bench))
    assert bench.mmu_update(table << 12, xens << 12 | READ_ONLY) == -EBUSY
    assert bench.mmu_update(xens << 12, 0) == -EINVAL
    assert bench.mmu_update(xens << 12 | 1, 5) == -EINVAL


def test_io_memory_is_not_for_an_unprivileged_domain(bench: Bench) -> None:
    table = bench.mfn(leaf_table(bench))
    assert bench.mmu_update(table << 12, 0xFEE00 << 12 | PAGE) == -EPERM


def test_other_domains_cannot_be_named(bench: Bench) -> None:
    address = bench.write(0x110, bytes(24))
    assert bench.call(1, address, 1, 0, 7) == -ESRCH
    assert bench.call(26, address, 1, 0, 7) == -ESRCH
    assert bench.call(1, address, 1, 0, 0x7FF2) == -EPERM


@pytest.mark.parametrize("slot", [256, 260, 271])
def test_xens_slots_of_a_64_bit_root(bench64: Bench, slot: int) -> None:
    root = bench64.mfn(ROOT)
    before = bench64.platform.hv.memory.u64((root << 12) + slot * 8)
    assert bench64.mmu_update((root << 12) + slot * 8, 0) == -EINVAL
    assert bench64.platform.hv.memory.u64((root << 12) + slot * 8) == before


def test_the_last_slot_of_a_pae_root_stays(bench32: Bench) -> None:
    root = bench32.mfn(ROOT)
    assert bench32.mmu_update((root << 12) + 3 * 8, 0) == -EINVAL


def test_xens_slots_of_the_last_pae_directory(bench32: Bench) -> None:
    directory = bench32.platform.hv.memory.u64((bench32.mfn(ROOT) << 12) + 24) & ~0xFFF
    assert bench32.mmu_update(directory + 428 * 8, 0) == -EPERM
    assert bench32.mmu_update(directory + 427 * 8, 0) == 0


def test_a_pae_root_needs_its_last_directory(bench32: Bench) -> None:
    bench32.write(SPARE, bytes(4096))
    bench32.set_mapping(SPARE, writable=False)
    assert bench32.mmuext(MmuExt.PIN_L3_TABLE, bench32.mfn(SPARE)) == -EINVAL


def test_the_last_pae_directory_is_not_shared(bench32: Bench) -> None:
    entry = bench32.platform.hv.memory.u64((bench32.mfn(ROOT) << 12) + 24)
    bench32.write(SPARE, bytes(24) + entry.to_bytes(8, "little"))
    bench32.set_mapping(SPARE, writable=False)
    assert bench32.mmuext(MmuExt.PIN_L3_TABLE, bench32.mfn(SPARE)) == -EINVAL


def test_large_pages_are_refused(bench: Bench) -> None:
    bench.write(SPARE, (bench.mfn(SPARE + 1) << 12 | 0xE3).to_bytes(8, "little"))
    bench.set_mapping(SPARE, writable=False)
    assert bench.mmuext(MmuExt.PIN_L2_TABLE, bench.mfn(SPARE)) == -EINVAL


def test_linear_entries_are_read_only(bench64: Bench) -> None:
    root = bench64.mfn(ROOT)
    assert bench64.mmu_update((root << 12) + 8, root << 12 | 0x67) == -EINVAL
    assert bench64.mmu_update((root << 12) + 8, root << 12 | 0x65) == 0


def test_shared_info_can_be_mapped_but_never_be_a_table(bench: Bench) -> None:
    shared = bench.platform.hv.domain.shared_info
    table = bench.mfn(leaf_table(bench))
    assert bench.mmu_update((table << 12) + 8, shared | PAGE) == 0
    assert bench.mmuext(MmuExt.PIN_L1_TABLE, shared >> 12) == -EINVAL


def test_a_descriptor_page_is_checked_and_read_only(bench: Bench) -> None:
    frames = bench.words(bench.mfn(SPARE))
    assert bench.call(2, bench.write(0x110, frames), 16) == -EINVAL
    bench.set_mapping(SPARE, writable=False)
    assert bench.call(2, bench.write(0x110, frames), 16) == 0
    assert bench.set_mapping(SPARE, writable=True) == -EBUSY
    bench.write(SPARE + 1, (0x0000890000000000).to_bytes(8, "little"))  # a TSS
    bench.set_mapping(SPARE + 1, writable=False)
    assert bench.call(2, bench.write(0x110, bench.words(bench.mfn(SPARE + 1))), 16) == -EINVAL


def test_a_root_must_be_one(bench: Bench) -> None:
    assert bench.mmuext(MmuExt.NEW_BASEPTR, bench.mfn(leaf_table(bench))) == -EINVAL
    assert bench.mmuext(MmuExt.NEW_BASEPTR, 1 << 20) == -EINVAL


def test_unknown_calls(bench: Bench) -> None:
    assert bench.call(55) == -ENOSYS
    assert bench.mmuext(14) == -ENOSYS
    assert bench.mmu_update(4, 0) == -ENOSYS


def test_done_is_written_even_on_failure(bench: Bench) -> None:
    table = bench.mfn(leaf_table(bench)) << 12
    good = (table + 8).to_bytes(8, "little") + bytes(8)
    bad = (1 << 40).to_bytes(8, "little") + bytes(8)
    address = bench.write(0x110, good + good + bad + good)
    done = bench.write(0x110, b"\xff" * 4, 0x100)
    assert bench.call(1, address, 4, done, 0x7FF0) == -EINVAL
    assert bench.cpu.u32(done) == 2


def test_64_bit_entries_are_adjusted(bench64: Bench) -> None:
    table = bench64.mfn(leaf_table(bench64)) << 12
    memory = bench64.platform.hv.memory
    bench64.mmu_update(table + 8, bench64.mfn(SPARE) << 12 | 0x63)
    assert memory.u64(table + 8) & ~0xFFFFFFFFFF000 == 0x67 | 1 << 52
    bench64.mmu_update(table + 8, bench64.mfn(SPARE) << 12 | 0x67)
    assert memory.u64(table + 8) & ~0xFFFFFFFFFF000 == 0x167
    bench64.mmu_update(table + 8 | 2, bench64.mfn(SPARE) << 12 | 0x07)
    assert memory.u64(table + 8) & 0x60 == 0x60
