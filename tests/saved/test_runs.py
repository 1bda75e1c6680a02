"""Which pages are in a file: those that are not zero, wherever they lie; pages elsewhere are told of."""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.machine.memory import MemorySnapshot
from pvops_core.saved.runs import digest_of, misplaced, runs_of
from pvops_core.x86 import PAGE

PAGES = 24
BYTES = st.dictionaries(st.integers(0, PAGES * PAGE - 1), st.integers(0, 255), max_size=12)


def memory_of(contents: bytes) -> MemorySnapshot:
    """A file with holes where a page was never written, and zeros where one was written with zeros."""
    file = os.memfd_create("test")
    os.ftruncate(file, len(contents))
    for page in range(0, len(contents), PAGE):
        if page % (3 * PAGE) == 0 or any(contents[page : page + PAGE]):
            os.pwrite(file, contents[page : page + PAGE], page)
    return MemorySnapshot(file, len(contents))


def of(values: dict[int, int]) -> bytes:
    contents = bytearray(PAGES * PAGE)
    for at, value in values.items():
        contents[at] = value
    return bytes(contents)


@given(BYTES)
def test_the_runs_are_the_pages_that_are_not_zero(values: dict[int, int]) -> None:
    contents = of(values)
    runs = runs_of(memory_of(contents), memoryview(contents))
    pages = [page for first, count in runs for page in range(first, first + count)]
    assert pages == sorted({at // PAGE for at, value in values.items() if value})
    assert all(first + count < second for (first, count), (second, _) in pairwise(runs))
    assert misplaced(memory_of(contents), memoryview(contents), runs) == ""


@given(BYTES, st.integers(0, PAGES * PAGE - 1), st.integers(1, 255))
def test_a_byte_in_a_page_of_its_own_is_told_of(values: dict[int, int], at: int, value: int) -> None:
    contents = of(values)
    runs = runs_of(memory_of(contents), memoryview(contents))
    other = bytearray(contents)
    other[at] = value
    inside = any(first <= at // PAGE < first + count for first, count in runs)
    wrong = misplaced(memory_of(bytes(other)), memoryview(bytes(other)), runs)
    assert wrong == ("" if inside else f"is damaged: physical address {at:#x} is not zero")
    assert (digest_of(memoryview(bytes(other)), runs) != digest_of(memoryview(contents), runs)) == (
        inside and other != bytearray(contents)
    )


def test_runs_that_no_file_has_are_told_of() -> None:
    contents = of({0: 1, PAGE: 1, 5 * PAGE: 1})
    memory, view = memory_of(contents), memoryview(contents)
    for runs in ([(0, 2), (1, 1)], [(0, 0)], [(5, PAGES)], [(-1, 1)]):
        assert "are not where pages may be" in misplaced(memory, view, runs)
    assert misplaced(memory, view, [(0, 2), (5, 1), (7, 1)]) == "page 7 is to be there and is a hole"
    assert np.frombuffer(contents, np.uint8).sum() == 3
