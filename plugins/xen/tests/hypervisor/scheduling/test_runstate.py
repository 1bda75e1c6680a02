"""Areas in which a vCPU's times are told."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.calls_rig import ARGUMENT, OTHER


def test_runstate_areas_follow_the_vcpu(bench64: Bench) -> None:
    area = bench64.va(OTHER)
    assert bench64.call(24, 5, 0, bench64.write(ARGUMENT, bench64.words(area))) == 0
    bench64.machine.clock.advance(1000)
    bench64.call(32, 1, bench64.write(ARGUMENT, struct.pack("<3I", 0, 0, 0)))
    bench64.call(24, 8, 0, bench64.write(ARGUMENT, struct.pack("<QI", 5_000_000, 0)))
    bench64.run("b81d000000bf010000000f05 ebfe")  # block: until the timer
    state, since, running, runnable, blocked, offline = struct.unpack("<i4x5Q", bench64.cpu.read_virtual(area, 48))
    assert (state, runnable, offline) == (0, 0, 0)
    assert since == running + blocked
    assert blocked > 4_000_000
    raw = bench64.write(ARGUMENT, b"")
    assert bench64.call(24, 4, 0, raw) == 0
    assert struct.unpack("<i4x5Q", bench64.cpu.read_virtual(raw, 48))[2] > running


def test_areas_that_are_not_mapped_are_taken_and_left_alone(bench: Bench) -> None:
    for command in (5, 13):
        assert bench.call(24, command, 0, bench.write(ARGUMENT, bench.words(0x1000))) == 0
        xens = 0xFFFF800000000000 if bench.word == 8 else 0xF5800000
        assert bench.call(24, command, 0, bench.write(ARGUMENT, bench.words(xens))) == -errno.EFAULT
