"""Flushes: which reach the engine, and whose."""

from __future__ import annotations

import pytest
from rig import GATES, SCRATCH, Rig


def remap(rig: Rig, frame: int) -> int:
    """Maps the scratch page's address to another frame behind the TLB's back; gives the entry's place."""
    place, value = rig.cpu.walk(rig.at(SCRATCH)).entries[-1]
    new = value & ~0xFFFFF000 | frame
    rig.machine.memory.write(place, new.to_bytes(rig.kind.entry_size, "little"))
    return place


POWER_OFF = "66 ba 04 06 66 b8 00 20 66 ef f4"


@pytest.mark.parametrize("op", ["flush_tlb_user", "flush_tlb_kernel", "flush_tlb_single", "flush_tlb_one_user"])
def test_flushes_reach_the_engine(rig: Rig, op: str) -> None:
    """The guest reads a page, the entry changes, it is flushed, the guest reads again."""
    memory = rig.machine.memory
    memory.set_u32(SCRATCH, 0x1111)
    memory.set_u32(SCRATCH + 0x1000, 0x2222)
    memory.write(GATES, rig.machine.gates.text)
    arguments = (rig.at(SCRATCH),) if op in {"flush_tlb_single", "flush_tlb_one_user"} else ()

    def change(cpu: object) -> None:
        del cpu
        remap(rig, SCRATCH + 0x1000)
        getattr(rig.ops, op)(rig.cpu, *arguments)

    rig.machine.gates.bind(0, change)
    rig.cpu.set("rsi", rig.at(SCRATCH))
    rig.cpu.set("rdi", rig.at(GATES))
    seen = run(rig, "8b 1e ff d7 8b 0e")
    assert seen == (0x1111, 0x2222)


def run(rig: Rig, code: str) -> tuple[int, int]:
    rig.machine.vcpus[1].halt()
    rig.machine.vcpus[2].halt()
    assert rig.run(bytes.fromhex(code + POWER_OFF)) == "poweroff"
    return rig.cpu.get("ebx"), rig.cpu.get("ecx")


def test_global_flush_leaves_cr4_as_it_was(rig: Rig) -> None:
    before = rig.cpu.cr4
    rig.ops.flush_tlb_kernel(rig.cpu)
    assert rig.cpu.cr4 == before


def test_shootdowns_reach_the_cpus_of_the_mask(rig: Rig) -> None:
    mask = rig.at(SCRATCH)
    rig.cpu.set_word(mask, 0b110)
    counts = rig.machine.counts
    before = counts["tlb_flushes"]
    rig.ops.flush_tlb_others(rig.cpu, mask, 0x1000)
    assert counts["tlb_flushes"] - before == 2
    size = rig.kind.pointer_size
    info = rig.at(SCRATCH) + 0x100
    rig.cpu.set_word(info + size, 0x4000)
    rig.cpu.set_word(info + 2 * size, 0x7000)
    rig.cpu.set_u8(info + 3 * size + 12, 12)
    rig.ops.flush_tlb_multi(rig.cpu, mask, info)
    assert counts["tlb_flushes"] - before == 2 + 2 * 3
    rig.cpu.set_word(info + 2 * size, -1)
    rig.ops.flush_tlb_multi(rig.cpu, mask, info)
    assert counts["tlb_flushes"] - before == 2 + 6 + 2
