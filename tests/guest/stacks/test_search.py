"""A word anywhere in memory."""

from __future__ import annotations

import numpy as np
import pytest

from pvops_core.guest.stacks.search import found_in
from pvops_core.guest.stacks.spans import Spans
from pvops_core.kinds import MachineKind
from tests.guest.stacks.places import RETURN, SITE, SPANS
from tests.machine.conftest import Rig


@pytest.mark.parametrize("kind", list(MachineKind))
@pytest.mark.parametrize("at", [0, 0x7FF8, 0xFFFF8])
def test_a_word_anywhere_in_memory_is_found(kind: MachineKind, at: int) -> None:
    rig = Rig(kind)
    rig.memory.array[:] = 0
    assert found_in(rig.memory, kind, SPANS) is None
    rig.memory.write(at, RETURN.to_bytes(kind.pointer_size, "little"))
    assert found_in(rig.memory, kind, SPANS) == RETURN
    rig.memory.write(at, (SITE + 6).to_bytes(kind.pointer_size, "little"))
    assert found_in(rig.memory, kind, SPANS) is None
    assert found_in(rig.memory, kind, Spans(np.zeros((0, 2), dtype=np.uint64))) is None
    rig.machine.close()
