"""Batches of hypercalls: what waits, and until when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_xen.ops.multicalls import MC_BATCH, Lazy

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.ops_rig import TABLE, TARGET, ops_of


def table_in_use(bench: Bench) -> int:
    bench.write(TABLE, bytes(4096))
    assert bench.set_mapping(TABLE, writable=False) == 0
    assert bench.mmuext(0, bench.mfn(TABLE)) == 0
    return bench.va(TABLE)


def test_lazy_updates_wait_and_full_batches_do_not(bench: Bench) -> None:
    va, ops = table_in_use(bench), ops_of(bench)
    ops.kept.late = True
    ops.mmu_lazy_mode_enter(bench.cpu)
    before = bench.platform.hypercalls["mmu_update"]
    for slot in range(MC_BATCH):
        ops.set_pte(bench.cpu, va + 8 * slot, ops.make_pte(bench.cpu, TARGET << 12 | 0x61))
    assert bench.platform.hypercalls["mmu_update"] == before
    assert bench.cpu.u64(va) == 0
    ops.set_pte(bench.cpu, va + 8 * MC_BATCH, 0)  # 512 bytes of arguments are used up: the rest goes first or after
    ops.mmu_lazy_mode_leave(bench.cpu)
    assert bench.cpu.u64(va) >> 12 & 0xFFFFFFF == bench.mfn(TARGET)
    assert bench.platform.hypercalls["mmu_update"] - before == 2
    ops.set_pte(bench.cpu, va, 0)
    assert bench.cpu.u64(va) == 0


def test_a_refused_call_of_a_batch_is_reported(bench: Bench) -> None:
    va, ops = table_in_use(bench), ops_of(bench)
    ops.kept.late = True
    ops.mmu_lazy_mode_enter(bench.cpu)
    ops.set_pte(bench.cpu, va, bench.mfn(TABLE) << 12 | 0x63)
    ops.flush_tlb_kernel(bench.cpu)
    assert ops.calls[0].flush() == 1
    assert ops.calls[0].failed == 1
    assert any(event.kind == "xen_mc_flush" for event in bench.machine.log.events)


def test_a_context_switch_interrupts_an_mmu_batch(bench: Bench) -> None:
    ops = ops_of(bench)
    batch = ops.calls[0]
    ops.mmu_lazy_mode_enter(bench.cpu)
    ops.start_context_switch(bench.cpu, 0)
    assert batch.mode == Lazy.CPU
    ops.load_sp0(bench.cpu, 0x1234)
    assert bench.platform.hv.domain.vcpus[0].kernel_sp == 0
    ops.end_context_switch(bench.cpu, 0)
    assert bench.platform.hv.domain.vcpus[0].kernel_sp == 0x1234
    assert batch.mode == Lazy.MMU
