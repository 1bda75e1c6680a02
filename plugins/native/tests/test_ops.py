"""Native ops on a real machine, called as the switchboard calls them."""

from __future__ import annotations

from pvops_native import backend
from pvops_native.ops import EMPTY, NOPS, NativeOps

from pvops_core.ops import LAYOUTS


def test_every_op_is_declared_once() -> None:
    for layout in LAYOUTS.values():
        for slot in (*layout.slots, *layout.boot_hooks):
            ways = [hasattr(NativeOps, slot.op.name), slot.op.name in NOPS, slot.op.name in EMPTY]
            assert sum(ways) == 1, slot.op.name
    assert backend.nops is NOPS
