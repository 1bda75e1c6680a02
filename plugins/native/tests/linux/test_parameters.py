"""Boot parameters: everything that a loader leaves is found by them."""

from __future__ import annotations

import itertools
import struct
from typing import TYPE_CHECKING

from linux_rig import MEMORY
from pvops_native.linux import acpi

if TYPE_CHECKING:
    from pvops_native.platform import NativePlatform


def test_boot_parameters_lead_to_everything(platform: NativePlatform) -> None:
    memory, vcpu = platform.machine.memory, platform.machine.vcpus[0]
    page = vcpu.get("rsi")
    assert memory.read(page + 0x202, 4) == b"HdrS"
    assert memory.u16(page + 0x1FE) == 0xAA55
    cmdline = memory.read(memory.u32(page + 0x228), 100).split(b"\0")[0]
    assert cmdline == b"console=ttyS0 nopti"
    start, size = memory.u32(page + 0x218), memory.u32(page + 0x21C)
    assert memory.read(start, size) == b"RAMDISK"
    ranges = [struct.unpack("<QQI", memory.read(page + 0x2D0 + 20 * i, 20)) for i in range(memory.u8(page + 0x1E8))]
    assert [kind for _, _, kind in ranges] == [1, 2, 1]
    assert ranges[-1][0] + ranges[-1][1] == MEMORY
    assert all(first + size <= second for (first, size, _), (second, _, _) in itertools.pairwise(ranges))
    assert memory.u64(page + 0x70) == acpi.BASE
