"""The page of virtio devices, in both of its forms."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from plugins.lguest.tests.launcher_rig import Driver, standing
from plugins.lguest.tests.small import RAM, SmallGuest, disk_file

if TYPE_CHECKING:
    from pathlib import Path


def test_descriptors_in_fields() -> None:
    with SmallGuest("2.6.24").session() as session:
        page = session.machine.memory.read(RAM, 64)
        first, second = (RAM >> 12) + 1, (RAM >> 12) + 3
        queues = struct.pack("<BBHHI", 2, 8, 128, 1, first) + struct.pack("<BBHHI", 2, 8, 128, 2, second)
        assert page == (bytes([3, 20, 0]) + queues).ljust(64, b"\0")


def test_descriptors_that_are_counted(tmp_path: Path) -> None:
    with SmallGuest("2.6.25").session(options={"disk": str(disk_file(tmp_path, 3))}) as session:
        page = session.machine.memory.read(RAM, 64)
        assert page[:5] == bytes([3, 2, 0, 0, 0])
        assert page[21:26] == bytes([2, 1, 1, 16, 0])
        assert page[34] == 1 << 2 | 1 << 5
        assert struct.unpack("<QII", page[36:52]) == (3, 0, 126)


def test_a_status_of_zero_resets_a_device() -> None:
    with standing("2.6.31") as session:
        session.machine.memory.set_u8(RAM + 4, 7)
        out = Driver(session, 1)
        out.offer((0x5000, 4, 0))
        out.kick()
        session.machine.memory.set_u8(RAM + 4, 0)
        session.platform.hypercall(session.machine.vcpus[0], 17, RAM)
        assert out.used == 0
        assert session.machine.memory.read(out.at, 16) == bytes(16)
