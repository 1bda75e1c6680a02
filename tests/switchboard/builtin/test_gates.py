"""The text of gates: whole, in its order, and in pieces that each lie in one page."""

from __future__ import annotations

import pytest

from pvops_core.machine import Machine, MachineKind
from pvops_core.switchboard.builtin.gates import GateAllocator
from pvops_core.x86 import PAGE


@pytest.mark.parametrize("base", [0x10000, 0x10FF8, 0x10008, 0x10D31])
@pytest.mark.parametrize("count", [2, 511, 512, 1200])
def test_no_piece_crosses_a_page(base: int, count: int) -> None:
    with Machine(MachineKind.X86_64, memory=1 << 20) as machine:
        machine.gates.map(base, count)
        pieces = GateAllocator(machine.gates, count).code()
        text = machine.gates.text
    assert b"".join(pieces[start] for start in sorted(pieces)) == text
    at = base
    for start, piece in sorted(pieces.items()):
        assert start == at
        assert 0 < len(piece) <= PAGE - start % PAGE
        at += len(piece)
