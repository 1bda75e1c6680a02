"""Console and disk on their rings."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from pvops_lguest.host.abi import Descriptors

from plugins.lguest.tests.launcher_rig import VIRTIO, Driver, standing
from plugins.lguest.tests.small import RAM, disk_file

if TYPE_CHECKING:
    from pathlib import Path


@VIRTIO
def test_the_console_prints_what_is_in_its_output_ring(name: str) -> None:
    with standing(name) as session:
        out = Driver(session, 1)
        if session.platform.state.abi.descriptors is Descriptors.COUNTED:
            out.offer((0x5000, 4, 0))
            out.kick()
            assert out.used == 0  # a driver acknowledges the device first
            session.machine.memory.set_u8(RAM + 4, 7)
        else:
            out.offer((0x5000, 4, 0))
        session.machine.memory.write(0x5000, b"text")
        out.kick()
        assert (out.used, bytes(session.platform.console)) == (1, b"text")
        assert session.platform.state.interrupts.save().pending == 1 << 2


@VIRTIO
def test_what_is_typed_waits_for_room(name: str) -> None:
    with standing(name) as session:
        if session.platform.state.abi.descriptors is Descriptors.COUNTED:
            session.machine.memory.set_u8(RAM + 4, 7)
        session.platform.typed(b"yes\n")
        into = Driver(session, 0)
        into.offer((0x5000, 3, 2))
        into.kick()
        assert (session.machine.memory.read(0x5000, 3), into.used) == (b"yes", 1)
        state = session.platform.save()
        into.offer((0x5000, 3, 2))
        into.kick()
        assert session.machine.memory.read(0x5000, 2) == b"\ns"[:1] + b"e"
        session.platform.load(state)
        into.kick()
        assert into.used == 3  # the newline again, for the ring went back too
        assert session.platform.state.interrupts.save().pending == 1 << 1


@pytest.mark.parametrize(("number", "flags"), [(0, 0), (1, 2)])
def test_buffers_of_the_wrong_sort_kill(number: int, flags: int) -> None:
    with standing("2.6.24") as session:
        ring = Driver(session, number)
        ring.offer((0x5000, 4, flags))
        session.platform.typed(b"x")
        ring.kick()
        stop = session.run(max_ns=1_000_000)
        assert stop.reason == "crash"
        assert "queue?" in stop.detail


@VIRTIO
def test_the_disk_is_read_and_not_written(name: str, tmp_path: Path) -> None:
    with standing(name, disk=str(disk_file(tmp_path, 4))) as session:
        if session.platform.state.abi.descriptors is Descriptors.COUNTED:
            session.machine.memory.set_u8(RAM + 21 + 4, 7)
        ring, memory = Driver(session, 2), session.machine.memory

        def ask(kind: int, sector: int, length: int = 1024) -> tuple[int, bytes]:
            memory.write(0x5000, struct.pack("<IIQ", kind, 0, sector))
            memory.write(0x6000, b"?" * 1024)
            memory.write(0x7000, b"?")
            ring.offer((0x5000, 16, 0), (0x6000, length, 2), (0x7000, 1, 2))
            ring.kick()
            return memory.read(0x7000, 1)[0], memory.read(0x6000, 16)

        assert ask(0, 1) == (0, b"sector 1........")
        assert ask(0x80000000, 2) == (0, b"sector 2........")
        assert ask(0, 3)[0] == 1  # half of it is behind the end
        assert ask(1, 0)[0] == 1
        assert ask(2, 0)[0] == 2
        assert session.platform.state.interrupts.save().pending == 1 << 3
