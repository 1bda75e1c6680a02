"""The page tables that firmware leaves: all memory twice, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_native.tables import LEVELS, TableBuilder

from pvops_core.errors import MachineError
from pvops_core.machine import MachineKind
from pvops_core.machine.memory import PhysicalMemory
from pvops_core.x86 import PAGE

BASES = {MachineKind.I386: 0xC000_0000, MachineKind.PAE: 0xC000_0000, MachineKind.X86_64: 0xFFFF_FFFF_8000_0000}


def walked(memory: PhysicalMemory, kind: MachineKind, root: int, va: int) -> int | None:
    """The frame of an address, by a walk of our own."""
    table = root
    for shift, width in LEVELS[kind]:
        place = table + (va >> shift & (1 << width) - 1) * kind.entry_size
        entry = int.from_bytes(memory.read(place, kind.entry_size), "little")
        if not entry & 1:
            return None
        table = entry & ~0xFFF
    return table // PAGE


@pytest.mark.parametrize("kind", list(MachineKind))
@settings(max_examples=10, deadline=None)
@given(frames=st.integers(1, 3000), seed=st.integers(0, 1 << 30))
def test_every_frame_is_where_it_is_and_above_the_base(kind: MachineKind, frames: int, seed: int) -> None:
    memory = PhysicalMemory(16 << 20)
    builder = TableBuilder(memory, kind, 3100)
    root = builder.build(frames, BASES[kind])
    frame = seed % frames
    assert walked(memory, kind, root, frame * PAGE) == frame
    assert walked(memory, kind, root, BASES[kind] + frame * PAGE) == frame
    assert walked(memory, kind, root, frames * PAGE) is None
    assert 3100 < builder.next_frame <= 4096


def test_memory_that_does_not_fit_above_the_base_is_refused() -> None:
    builder = TableBuilder(PhysicalMemory(16 << 20), MachineKind.I386, 3100)
    with pytest.raises(MachineError, match="do not fit above"):
        builder.build((1 << 30) // PAGE + 1, BASES[MachineKind.I386])
