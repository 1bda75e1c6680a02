"""What a call stores, as changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.testing.changes import StateChange
from tests.session.selfpatching import CELL

if TYPE_CHECKING:
    from pvops_core.testing.booted import BootedKernel


def test_what_it_stores_is_a_change_by_address_and_a_second_call_s_is_its_own(kernel: BootedKernel) -> None:
    assert kernel.call("store", 7).changes.memory == {CELL: StateChange(0, 7)}
    assert kernel.call("store", 9).changes.memory == {CELL: StateChange(7, 9)}
    assert not kernel.call("store", 9).changes
    kernel.restore()
    assert kernel.machine.memory.u64(CELL) == 0
    assert kernel.call("store", 9).changes.memory == {CELL: StateChange(0, 9)}
