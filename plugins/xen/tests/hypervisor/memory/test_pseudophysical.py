"""A domain's memory by its own frame numbers: tables translated, everything else as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from pvops_xen.hypervisor.memory.entries import ADDRESS, P
from pvops_xen.hypervisor.memory.pseudophysical import PseudoPhysical

from pvops_core.kinds import MachineKind
from pvops_core.x86 import PAGE, PAGE_SHIFT

if TYPE_CHECKING:
    from conftest import Bench

SPARE = 0x300


def contents(bench: Bench) -> bytes:
    """All of it, where nothing is missing."""
    platform = bench.platform
    memory = bytearray(platform.ram()[-1][1])
    for address, data in platform.ram_contents():
        memory[address : address + len(data)] = data.tobytes()
    return bytes(memory)


def words(page: bytes) -> list[int]:
    return [int(each) for each in np.frombuffer(page, np.uint64)]


def walk(memory: bytes, root: int, va: int, levels: int) -> int | None:
    """Where an address is by tables that hold the numbers of the memory that they are in."""
    frame = root
    for level in range(levels - 1, -1, -1):
        entry = words(memory[frame << PAGE_SHIFT :][:PAGE])[va >> PAGE_SHIFT + 9 * level & 511]
        if not entry & P:
            return None
        frame = (entry & ADDRESS) >> PAGE_SHIFT
    return frame


def test_a_domain_has_all_its_pages(bench: Bench) -> None:
    assert bench.platform.ram() == [(0, bench.platform.hv.domain.nr_pages << PAGE_SHIFT)]


def test_pages_are_what_they_are_in_the_machine(bench: Bench) -> None:
    bench.write(SPARE, b"here")
    assert contents(bench)[SPARE << PAGE_SHIFT :][:4] == b"here"


def test_tables_lead_where_xens_own_do(bench: Bench) -> None:
    hv, memory = bench.platform.hv, contents(bench)
    levels = 4 if bench.machine.kind is MachineKind.X86_64 else 3
    root = hv.pfn_of(hv.domain.vcpus[0].guest_table)
    for pfn in (0, 1, SPARE):
        machine = hv.space.translate(bench.cpu, bench.va(pfn)) >> PAGE_SHIFT
        assert walk(memory, root, bench.va(pfn), levels) == hv.pfn_of(machine) == pfn


def test_xens_own_slots_are_empty(bench: Bench) -> None:
    if bench.machine.kind is not MachineKind.X86_64:
        pytest.skip("a PAE guest has no fourth level")
    hv = bench.platform.hv
    mfn = hv.domain.vcpus[0].guest_table
    assert any(words(hv.memory.read(mfn << PAGE_SHIFT, PAGE))[256:272])
    assert not any(words(contents(bench)[hv.pfn_of(mfn) << PAGE_SHIFT :][:PAGE])[256:272])


def test_what_is_not_the_guests_is_taken_out(bench: Bench) -> None:
    """The page that Xen shares has no number in the guest's memory."""
    hv = bench.platform.hv
    entry = hv.domain.shared_info | 0x61
    args = (entry, 0) if bench.word == 8 else (entry & 0xFFFFFFFF, entry >> 32, 0)
    assert bench.call(14, bench.va(SPARE), *args) == 0
    root, levels = hv.pfn_of(hv.domain.vcpus[0].guest_table), 4 if bench.machine.kind is MachineKind.X86_64 else 3
    assert walk(contents(bench), root, bench.va(SPARE), levels) is None


@pytest.mark.parametrize("number", [(1 << 64) - 1, 1 << 40])
def test_a_number_that_no_memory_has_is_left_out(bench64: Bench, number: int) -> None:
    bench64.platform.hv.set_pfn_of(bench64.mfn(SPARE), number)
    end = bench64.platform.hv.domain.nr_pages << PAGE_SHIFT
    assert bench64.platform.ram() == [(0, SPARE << PAGE_SHIFT), (SPARE + 1 << PAGE_SHIFT, end)]


def test_of_two_frames_with_one_number_one_is_shown(bench64: Bench) -> None:
    hv = bench64.platform.hv
    hv.set_pfn_of(bench64.mfn(SPARE + 1), SPARE)
    chosen = min(bench64.mfn(SPARE), bench64.mfn(SPARE + 1))
    found = PseudoPhysical.of(hv)
    assert found.mfns[found.pfns == SPARE].tolist() == [chosen]
