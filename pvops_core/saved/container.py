"""The file of a saved session: its front, and memory with holes where it is zero.

All numbers are little-endian. Digests are XXH3's of 128 bits: they see damage, not malice; whoever reads checks every
bound. A byte that belongs to nothing is zero. docs/reference/saved-sessions.md has it field by field.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from pvops_core.beside import write_at
from pvops_core.machine.memory import MemorySnapshot
from pvops_core.saved.errors import SavedError
from pvops_core.saved.front import Head, Making, opened, pack, read_front, unreadable
from pvops_core.saved.runs import digest_of, misplaced, runs_of
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from pathlib import Path

    from pvops_core.saved.key import Key


class Opened(NamedTuple):
    """A file that is whole: its head, its states, and its memory, which stays in it."""

    head: Head
    states: bytes
    memory: MemorySnapshot


def write(file: int, told: tuple[Key, Making, str, int, int], states: bytes, memory: MemorySnapshot) -> None:
    """Write a file, which is empty: what the head begins with, states, memory. OSError where it cannot be."""
    with memory.mapped() as contents:
        runs = runs_of(memory, contents)
        front, begin = pack(Head(*told, runs, digest_of(contents, runs)), states, memory.size)
        # Memory that is zero becomes holes: only the runs are written.
        os.ftruncate(file, begin + memory.size)
        write_at(file, front, 0)
        for first, pages in runs:
            write_at(file, contents[first * PAGE : (first + pages) * PAGE], begin + first * PAGE)


def read(path: Path) -> Opened:
    """Read a file that somebody else may have made.

    Raises:
        SavedError: it cannot be read, is no saved session, of another version, or is damaged.
    """
    with opened(path) as file:
        head, states, begin, size = read_front(file, str(path))
        memory = MemorySnapshot(os.dup(file), size, begin)
        try:
            _check_memory(memory, head, str(path))
        except OSError as failure:
            raise unreadable(path, failure) from failure
    return Opened(head, states, memory)


def _check_memory(memory: MemorySnapshot, head: Head, path: str) -> None:
    with memory.mapped() as contents:
        if wrong := misplaced(memory, contents, head.runs):
            raise SavedError(wrong, path, field="memory")
        if digest_of(contents, head.runs) != head.memory:
            raise SavedError("is damaged: it does not have the digest that it says", path, field="memory")
