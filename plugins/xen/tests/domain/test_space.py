"""The plan of a domain's memory."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pvops_xen.domain.notes import ElfNote
from pvops_xen.domain.space import SLACK, MemoryRequest, plan

from plugins.xen.tests.domain_rig import BASE, MEMORY, Notes, boot, elf, start_info
from pvops_core.errors import MachineError, UsageError

if TYPE_CHECKING:
    from pvops_core.session import Session


def test_ramdisk_and_p2m_list_out_of_the_mapping(boots: list[Session]) -> None:
    where = 0x80_0000_0000
    notes: Notes = {ElfNote.INIT_P2M: where.to_bytes(8, "little"), ElfNote.MOD_START_PFN: b"\1\0\0\0"}
    session = boot(boots, elf(64, notes), initrd=b"ramdisk")
    cpu, info = session.machine.vcpus[0], start_info(session, 64)
    assert info["flags"] & 8
    assert session.machine.memory.read(session.platform.machine_address(info["mod_start"] << 12), 7) == b"ramdisk"
    assert info["mfn_list"] == where
    assert cpu.u64(where + 8 * 5) << 12 == session.platform.machine_address(5 << 12)
    assert info["nr_p2m_frames"] == (MEMORY >> 21) + 3  # and a table of each level below the root
    assert cpu.walk(where, write=True).pa == session.platform.machine_address(info["first_p2m_pfn"] << 12)


def test_too_little_memory(boots: list[Session]) -> None:
    with pytest.raises(MachineError):
        boot(boots, elf(64), memory=1 << 20)
    with pytest.raises(UsageError, match="has room for 1023"):
        boot(boots, elf(64), memory=MEMORY, cmdline="x" * 1024)


@given(
    bits=st.sampled_from([32, 64]),
    kernel_end=st.integers(1, 3000),
    initrd=st.integers(0, 600),
    mapped=st.booleans(),
    own_p2m=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_plan_maps_what_it_lays_out(
    *,
    bits: int,
    kernel_end: int,
    initrd: int,
    mapped: bool,
    own_p2m: bool,
    seed: int,
) -> None:
    memory = 8192
    where = 0x80_0000_0000 if own_p2m and bits == 64 else None
    made = plan(MemoryRequest(bits, BASE[bits], kernel_end, initrd, mapped, memory // 512, where, memory))
    p2m = np.random.default_rng(seed).permutation(memory).astype(np.uint64)
    tables = {pfn: struct.unpack("<512Q", page) for pfn, page in made.space.contents(p2m).items()}
    pfn_of = {int(mfn): pfn for pfn, mfn in enumerate(p2m)}
    table_frames = set(tables)
    assert len(table_frames) == len(made.space.tables)
    for area in made.space.areas:
        for index in range(0, area.count, 7):
            va, at = area.va + (index << 12), made.tables
            for level in range(made.space.levels, 0, -1):
                entry = tables[at][va >> (3 + 9 * level) & 511]
                assert entry & 1
                at = pfn_of[(entry & 0x000F_FFFF_FFFF_F000) >> 12]
            assert at == area.pfn + index
            assert bool(entry & 2) == (at not in table_frames)
    kernel = made.space.areas[0]
    assert kernel.end % (4 << 20) == 0
    assert kernel.count > made.stack
    assert kernel.end - (BASE[bits] + (made.stack + 1 << 12)) >= SLACK
    ends = [made.initrd + initrd, made.p2m + memory // 512, made.tables + made.table_count, made.stack + 1]
    assert made.end >= max(*ends, kernel.count)
