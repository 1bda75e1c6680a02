"""Snapshots of memory hold what memory holds, and cost what was touched."""

from __future__ import annotations

import random
from typing import Final

import numpy as np
import pytest

from pvops_core.machine import hostpages
from pvops_core.machine.memory import PAGE, MemorySnapshot, PhysicalMemory

SIZE: Final = 8 << 20


def scattered(memory: PhysicalMemory, seed: int) -> None:
    """Write, and clear, some words anywhere."""
    rng = random.Random(seed)
    for _ in range(40):
        memory.set_u64(rng.randrange(memory.size // 8) * 8, rng.choice([0, rng.getrandbits(64)]))


def equal(memory: PhysicalMemory, snapshot: MemorySnapshot) -> bool:
    return memory.read(0, memory.size) == snapshot.read(0, snapshot.size)


@pytest.fixture(params=[True, False], ids=["told", "untold"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> PhysicalMemory:
    """On hosts that tell of a process's pages, and on those that do not."""
    if not request.param:
        monkeypatch.setattr(hostpages, "entries", lambda _address, _size: np.empty(0, "<u8"))
    return PhysicalMemory(SIZE)


def test_a_snapshot_holds_what_was_written(memory: PhysicalMemory) -> None:
    scattered(memory, 1)
    assert equal(memory, memory.save())


def test_snapshots_of_what_went_back_to_one(memory: PhysicalMemory) -> None:
    scattered(memory, 1)
    first = memory.save()
    scattered(memory, 2)
    second = memory.save()
    memory.load(first)
    scattered(memory, 3)
    third = memory.save()
    assert equal(memory, third)
    memory.load(second)
    assert equal(memory, memory.save())
    memory.load(third)
    assert equal(memory, memory.save())


def test_snapshots_inside_and_after_what_is_undone(memory: PhysicalMemory) -> None:
    scattered(memory, 1)
    with memory.undone() as before:
        scattered(memory, 2)
        assert equal(memory, memory.save())
    assert equal(memory, before)
    scattered(memory, 3)
    assert equal(memory, memory.save())
    with memory.undone():
        memory.write(0, bytes(SIZE))
        assert equal(memory, memory.save())


def test_untouched_memory_is_not_looked_at() -> None:
    memory = PhysicalMemory(1 << 32)
    if not len(hostpages.entries(memory.address, PAGE)):
        pytest.skip("the host does not tell")
    for page in (0, 77, (1 << 20) - 1):
        memory.set_u8(page * PAGE, 1)
    snapshot = memory.save()
    assert sum(end - start for start, end in snapshot.extents()) == 3 * PAGE
    assert hostpages.held(hostpages.entries(memory.address, memory.size)).sum() <= 3 * 512  # of the host's large pages
    memory.load(snapshot)
    assert memory.u8(77 * PAGE) == 1
