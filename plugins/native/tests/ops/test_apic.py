"""The local APIC's ops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_native.devices.apic import LVT_TIMER

if TYPE_CHECKING:
    from rig import Rig


def test_local_apic(rig: Rig) -> None:
    ops, cpus = rig.ops, rig.machine.vcpus
    assert ops.apic_read(cpus[2], 0x20) == 2 << 24
    ops.apic_write(cpus[1], 0xF0, 0x1FF)
    assert ops.apic_read(cpus[1], 0xF0) == 0x1FF
    ops.apic_write_atomic(cpus[0], 0x80, 0x20)
    assert ops.apic_read(cpus[0], 0x80) == 0x20
    ops.setup_boot_clock(cpus[0])
    ops.setup_secondary_clock(cpus[1])
    assert ops.apic_read(cpus[1], LVT_TIMER) == 0x1_00EF
