"""Address spaces: pinned and given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.memory.frames import FrameType

from pvops_core.backends import HypercallMade
from pvops_core.machine import GuestFault

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.ops_rig import MM, ROOT, TABLE, TARGET, USER_ROOT, ops_of


def test_a_refused_pin_is_a_bug(bench: Bench) -> None:
    ops = ops_of(bench)
    bench.write(TABLE, (bench.platform.hv.m2p | 0x63).to_bytes(8, "little"))
    with pytest.raises(GuestFault) as caught:
        ops.alloc_pte(bench.cpu, bench.va(MM), TABLE)
    assert caught.value.vector == 6


def test_a_space_is_pinned_and_given_back(bench64: Bench) -> None:
    bench, ops = bench64, ops_of(bench64)
    ops.kept.late = True
    mm = bench.write(MM, bench.words(bench.va(ROOT), bench.va(USER_ROOT)))
    for pfn in (ROOT, USER_ROOT, 0x332, 0x333, 0x334):
        bench.write(pfn, bytes(4096))
    kernel = bench.platform.hv.memory.u64((bench.mfn(0x200) << 12) + 511 * 8)
    bench.write(ROOT, kernel.to_bytes(8, "little"), 511 * 8)
    ops.pgd_alloc(bench.cpu, mm)
    table = 0x67
    ops.set_pte(bench.cpu, bench.va(0x334), ops.make_pte(bench.cpu, TARGET << 12 | table))
    ops.set_pmd(bench.cpu, bench.va(0x333), ops.make_pmd(bench.cpu, 0x334 << 12 | table))
    ops.set_pud(bench.cpu, bench.va(0x332), ops.make_pud(bench.cpu, 0x333 << 12 | table))
    ops.set_p4d(bench.cpu, bench.va(ROOT), ops.make_p4d(bench.cpu, 0x332 << 12 | table))
    assert bench.cpu.u64(bench.va(USER_ROOT)) == bench.cpu.u64(bench.va(ROOT))
    ops.activate_mm(bench.cpu, mm)
    frames = bench.platform.hv.frames
    kinds = [frames.in_use_as(bench.mfn(pfn)) for pfn in (ROOT, USER_ROOT, 0x332, 0x333, 0x334)]
    assert kinds == [FrameType.L4, FrameType.L4, FrameType.L3, FrameType.L2, FrameType.L1]
    ops.xen_write_cr3(bench.cpu, ROOT << 12)
    state = bench.platform.hv.domain.vcpus[0]
    assert (state.guest_table, state.guest_table_user) == (bench.mfn(ROOT), bench.mfn(USER_ROOT))
    ops.kept.user_roots.pop(0x200, None)
    ops.xen_write_cr3(bench.cpu, 0x200 << 12)
    assert state.guest_table_user == 0
    ops.exit_mmap(bench.cpu, mm)
    assert all(frames.types[bench.mfn(pfn)] == 1 for pfn in (0x332, 0x333, 0x334))  # mapped writable again
    assert not {ROOT, USER_ROOT, 0x332, 0x333, 0x334} & ops.kept.pinned


def test_an_entry_of_both_roots_is_written_by_one_hypercall(bench64: Bench) -> None:
    bench, ops, made = bench64, ops_of(bench64), list[HypercallMade]()
    ops.kept.late = True
    mm = bench.write(MM, bench.words(bench.va(ROOT), bench.va(USER_ROOT)))
    for pfn in (ROOT, USER_ROOT):
        bench.write(pfn, bytes(4096))
    ops.pgd_alloc(bench.cpu, mm)
    ops.activate_mm(bench.cpu, mm)
    bench.platform.observe(made.append)
    ops.set_p4d(bench.cpu, bench.va(ROOT) + 8, 0)
    (call,) = made
    assert call.name == "mmu_update"
    assert call.operations == tuple((bench.mfn(pfn) << 12 | 8, 0) for pfn in (ROOT, USER_ROOT))


@pytest.mark.parametrize("use", ["activate_mm", "enter_mmap"])
def test_a_root_without_a_user_root_is_pinned_alone(bench64: Bench, use: str) -> None:
    ops = ops_of(bench64)
    ops.kept.late = True
    mm = bench64.write(MM, bench64.words(bench64.va(ROOT), 0))
    bench64.write(ROOT, bytes(4096))
    getattr(ops, use)(bench64.cpu, mm)
    assert ops.kept.pinned == {ROOT}
    assert bench64.platform.hv.frames.in_use_as(bench64.mfn(ROOT)) == FrameType.L4
    ops.exit_mmap(bench64.cpu, mm)
    assert not ops.kept.pinned
    assert bench64.platform.hv.frames.in_use_as(bench64.mfn(ROOT)) != FrameType.L4
