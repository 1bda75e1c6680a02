"""What the host tells of pages written is what was written, or nothing at all."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvops_core.machine.memory import PAGE, PhysicalMemory, WriteWatch
from pvops_core.machine.unicorn import writewatch

PAGES = 16


def watched(memory: PhysicalMemory) -> WriteWatch:
    """From the second page on; skips where the host does not tell."""
    watch = WriteWatch(memory.array[PAGE:])
    watch.written()
    if watch.written() is None:
        pytest.skip("this host's kernel does not tell which pages have been written")
    return watch


def pages(found: list[tuple[int, int]] | None) -> set[int]:
    assert found is not None
    return {page for start, end in found for page in range(start // PAGE, -(-end // PAGE))}


@settings(deadline=None)
@given(rounds=st.lists(st.sets(st.integers(0, PAGES - 1)), max_size=5))
def test_it_tells_each_page_once(rounds: list[set[int]]) -> None:
    memory = PhysicalMemory(PAGES * PAGE)
    watch = watched(memory)
    for written in rounds:
        for page in written:
            memory.set_u8(page * PAGE + 7, 1)
        assert pages(watch.written()) == {page - 1 for page in written if page}
    assert watch.written() == []


def test_what_is_mapped_anew_is_not_known_at_first() -> None:
    memory = PhysicalMemory(PAGES * PAGE)
    watch = watched(memory)
    saved = memory.save()
    memory.set_u8(2 * PAGE, 1)
    memory.load(saved)
    assert watch.written() is None
    memory.set_u8(3 * PAGE, 1)
    assert pages(watch.written()) == {2}


def test_more_regions_than_there_is_room_for_are_not_known() -> None:
    memory = PhysicalMemory((2 * writewatch._REGIONS + 8) * PAGE)
    watch = watched(memory)
    for page in range(1, memory.size // PAGE, 2):
        memory.set_u8(page * PAGE, 1)
    assert watch.written() is None


@pytest.mark.parametrize("fails", ["ctypes.CDLL", "fcntl.ioctl"])
def test_a_host_that_does_not_tell(fails: str) -> None:
    with patch(fails) as broken:
        broken.return_value.syscall.return_value = -1
        broken.side_effect = PermissionError if fails == "fcntl.ioctl" else None
        watch = WriteWatch(PhysicalMemory(PAGE).array)
    assert watch.written() is None
    assert watch.written() is None
