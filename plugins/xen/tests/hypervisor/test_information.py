"""What Xen says of itself, and what a kernel may ask it to assist with."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.calls_rig import ARGUMENT, OTHER


def test_xen_version(bench: Bench) -> None:
    sizes = {1: 16, 2: 144, 3: 1024, 4: 64, 5: bench.word, 6: 8, 8: 16, 9: 9}
    for command, size in sizes.items():
        argument = bench.write(OTHER, b"\0" * 8 + b"\xee" * 1200)
        assert bench.call(17, command, argument) == 0, command
        rest = bench.cpu.read_virtual(argument + max(size, 8), 1200 - max(size, 8))
        assert rest == b"\xee" * len(rest), command
    assert bench.cpu.read_virtual(bench.va(OTHER), 9) == b"<denied>\0"
    assert [bench.call(17, command, 0) for command in (0, 7, 10, 11)] == [
        4 << 16 | 17, 4096, -errno.EPERM, -errno.ENOSYS,
    ]  # fmt: skip
    argument = bench.write(OTHER, struct.pack("<II", 0, 0))
    bench.call(17, 6, argument)
    assert bench.cpu.u32(argument + 4) == 1 << 5 | 1 << 6 | 1 << 7 | 1 << 13 | 1 << 17
    assert bench.call(21, 0, 3) == 0
    bench.call(17, 6, argument)
    assert bench.cpu.u32(argument + 4) >> 4 & 1
    assert bench.call(17, 6, bench.write(OTHER, struct.pack("<II", 1, 0))) == -errno.EINVAL


def test_vm_assist(bench: Bench) -> None:
    valid = {0, 1, 2, 3, 4, 5} | ({32} if bench.word == 8 else set())
    for kind in range(64):
        assert bench.call(21, 0, kind) == (0 if kind in valid else -errno.EINVAL)
        assert bench.call(21, 1, kind) == (0 if kind in valid else -errno.EINVAL)
    assert bench.call(21, 2, 0) == -errno.ENOSYS


def test_the_size_of_a_page_takes_no_argument(bench: Bench) -> None:
    assert bench.call(17, 7, bench.va(OTHER)) == -errno.EINVAL


def test_commands_are_ints(bench64: Bench) -> None:
    """What C has as an int counts in a register's lower half alone; ``unsigned long`` counts as a whole."""
    high = 1 << 40
    assert bench64.call(17, high, 0) == 4 << 16 | 17
    assert bench64.call(24, high | 3, high, 0) == 1
    assert bench64.call(29, high, 0) == 0
    assert bench64.call(32, high | 9, bench64.write(ARGUMENT, struct.pack("<I", 1))) == 0
    assert bench64.call(34, high | 10, bench64.write(ARGUMENT, bytes(8))) == -errno.ENOSYS
    assert bench64.call(12, high | 2, 0) == -errno.EINVAL, "the extents that are done"
