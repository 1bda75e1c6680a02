"""The pages of shadow tables: where an entry is, and that taking tables apart gives every frame back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_lguest.host.frames import FramePool
from pvops_lguest.host.paging import PRESENT, THREE_LEVELS, TWO_LEVELS, TableForm
from pvops_lguest.host.shadowpages import ShadowPages

from pvops_core.machine.memory import PhysicalMemory

FRAMES = 60


def taken(pool: FramePool) -> int:
    pa = pool.take()
    assert pa is not None
    return pa


def mapped(pages: ShadowPages, pool: FramePool, form: TableForm, root: int, va: int) -> int:
    """Make the tables for an address; the place of its last entry."""
    table = root
    for depth in range(len(form.uppers)):
        slot = pages.slot(table, va, depth)
        if not pages.entry(slot) & PRESENT:
            pages.set_entry(slot, taken(pool) | PRESENT)
        table = pages.entry(slot) & form.frame
    return pages.last(table, va)


@pytest.mark.parametrize("form", [TWO_LEVELS, THREE_LEVELS])
@settings(deadline=None)
@given(addresses=st.lists(st.integers(0, 0xFF7FFFFF), max_size=8), end=st.integers(0, 0xFFFFFFFF))
def test_what_is_mapped_is_found_and_what_is_cleared_is_given_back(
    form: TableForm, addresses: list[int], end: int
) -> None:
    memory = PhysicalMemory(FRAMES << 12)
    pool = FramePool(memory, 0, FRAMES)
    pages = ShadowPages(memory, pool, form)
    root = pages.blank(lambda: taken(pool), 0x7000 | PRESENT)
    least = pool.available
    for va in addresses:
        assert mapped(pages, pool, form, root, va) == pages.find(root, va)
    pages.release_below(root, end)
    border = end >> form.uppers[0].shift
    assert all((pages.find(root, va) is None) == (va >> form.uppers[0].shift < border) for va in addresses)
    pages.clear(root)
    assert all(pages.find(root, va) is None for va in addresses)
    # PAE's middle table of the top is the switcher's and stays, unless it went with the rest.
    assert pool.available in {least, least + 1}


@pytest.mark.parametrize("form", [TWO_LEVELS, THREE_LEVELS])
def test_a_blank_directory_has_the_switcher_alone(form: TableForm) -> None:
    memory = PhysicalMemory(FRAMES << 12)
    pool = FramePool(memory, 0, FRAMES)
    pages = ShadowPages(memory, pool, form)
    root = pages.blank(lambda: taken(pool), 0x7000 | PRESENT)
    assert pages.find(root, form.switcher) == 0x7000
    assert pages.find(root, 0) is None
