"""The interrupt flag."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rig import Rig


def test_interrupt_flag(rig: Rig) -> None:
    rig.ops.irq_enable(rig.cpu)
    assert rig.ops.save_fl(rig.cpu) & 0x200
    rig.ops.irq_disable(rig.cpu)
    assert not rig.cpu.interrupts_enabled
    rig.ops.restore_fl(rig.cpu, 0x246)
    assert rig.ops.save_fl(rig.cpu) & 0x2FF == 0x246
