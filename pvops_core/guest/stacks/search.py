"""A guest of which nothing is known keeps its return addresses somewhere: all of its memory is looked through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from pvops_core.guest.stacks.spans import Spans
    from pvops_core.machine import MachineKind, PhysicalMemory

_AT_ONCE: Final = 1 << 20
"""Words that are looked at in one go."""


def found_in(memory: PhysicalMemory, kind: MachineKind, spans: Spans) -> int | None:
    """A word of memory that is an address inside of spans, if there is any: the address."""
    if not len(spans):
        return None
    words = memory.array.view(f"<u{kind.pointer_size}")
    # One pass over all spans at once, cheap, before each is asked for.
    first, last = words.dtype.type(spans.ranges[:, 0].min()), words.dtype.type(spans.ranges[:, 1].max())
    # In pieces: a mask of all of memory would take as much again.
    for start in range(0, len(words), _AT_ONCE):
        part = words[start : start + _AT_ONCE]
        near = part[(part > first) & (part < last)].astype(np.uint64)
        hits = np.flatnonzero(spans.hits(near))
        if len(hits):
            return int(near[hits[0]])
    return None
