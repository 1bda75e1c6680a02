"""ACPI tables."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pvops_native import apics
from pvops_native.devices.acpi import PM1_EVENT, PM_TIMER
from pvops_native.linux import acpi

if TYPE_CHECKING:
    from pvops_native.platform import NativePlatform


def test_acpi_tables_are_whole(platform: NativePlatform) -> None:
    memory = platform.machine.memory
    assert memory.read(acpi.BASE, 8) == b"RSD PTR "
    assert sum(memory.read(acpi.BASE, 20)) & 0xFF == 0

    def table(address: int, signature: bytes) -> bytes:
        data = memory.read(address, memory.u32(address + 4))
        assert data[:4] == signature
        assert sum(data) & 0xFF == 0
        return data

    rsdt = table(memory.u32(acpi.BASE + 16), b"RSDT")
    fadt = table(struct.unpack_from("<I", rsdt, 36)[0], b"FACP")
    madt = table(struct.unpack_from("<I", rsdt, 40)[0], b"APIC")
    assert struct.unpack_from("<II", madt, 36) == (apics.LOCAL, 1)
    kinds, at = [], 44
    while at < len(madt):
        kinds.append(madt[at])
        at += madt[at + 1]
    assert (kinds, at) == ([0] * len(platform.machine.vcpus) + [1, 2, 4], len(madt))
    assert len(fadt) == 244
    facs, dsdt = struct.unpack_from("<II", fadt, 36)
    assert memory.read(facs, 4) == b"FACS"
    assert facs % 64 == 0
    assert b"_S5_" in table(dsdt, b"DSDT")
    assert struct.unpack_from("<H", fadt, 46) == (acpi.SCI,)
    assert struct.unpack_from("<I", fadt, 56) == (PM1_EVENT,)
    assert struct.unpack_from("<I", fadt, 64) == (0x604,)
    assert struct.unpack_from("<I", fadt, 76) == (PM_TIMER,)
    assert (fadt[88], fadt[89], fadt[91], fadt[108]) == (4, 2, 4, 0x32)
    flags = struct.unpack_from("<I", fadt, 112)[0]
    assert flags & 1 << 10  # the reset register is there
    assert not flags & 1 << 20  # not hardware-reduced: the 8259s are
    assert struct.unpack_from("<BBBBQB", fadt, 116) == (1, 8, 0, 1, 0xCF9, 6)
