"""Which pages of memory are in a file: all that are not zero, as runs of pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import xxhash

from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from pvops_core.machine.memory import MemorySnapshot

Run = tuple[int, int]
"""Number of the first page, and how many."""


def runs_of(memory: MemorySnapshot, contents: memoryview) -> tuple[Run, ...]:
    """The runs of pages that are not zero, ascending."""
    used = np.zeros(memory.size // PAGE, np.bool_)
    for first, count in _held(memory):
        pages = np.frombuffer(contents, np.uint64, count * PAGE // 8, first * PAGE)
        used[first : first + count] = pages.reshape(count, -1).any(axis=1)
    return tuple(_runs(used))


def _held(memory: MemorySnapshot) -> Iterator[Run]:
    """Runs of pages that are no holes."""
    return ((start // PAGE, -(-end // PAGE) - start // PAGE) for start, end in memory.extents())


def _runs(chosen: npt.NDArray[np.bool_]) -> Iterator[Run]:
    edges = np.flatnonzero(np.diff(chosen.astype(np.int8), prepend=0, append=0))
    return ((int(begin), int(end - begin)) for begin, end in edges.reshape(-1, 2))


def digest_of(contents: memoryview, runs: Iterable[Run]) -> bytes:
    """XXH3, 128 bits, over the runs' bytes in order."""
    digest = xxhash.xxh3_128()
    for first, count in runs:
        digest.update(contents[first * PAGE : (first + count) * PAGE])
    return digest.digest()


def misplaced(memory: MemorySnapshot, contents: memoryview, runs: Iterable[Run]) -> str:
    """What is wrong with where a file has its pages; empty if nothing is. Holes are not read."""
    told, held = (np.zeros(memory.size // PAGE, np.bool_) for _ in range(2))
    end = 0
    for first, count in runs:
        if first < end or count < 1 or first + count > len(told):
            return f"{count} pages from {first} on are not where pages may be"
        end = first + count
        told[first:end] = True
    for first, count in _held(memory):
        held[first : first + count] = True
    if (empty := told & ~held).any():
        return f"page {int(empty.argmax())} is to be there and is a hole"
    for first, count in _runs(held & ~told):
        stray = np.frombuffer(contents, np.uint8, count * PAGE, first * PAGE)
        if stray.any():
            return f"is damaged: physical address {first * PAGE + int(stray.argmax()):#x} is not zero"
    return ""
