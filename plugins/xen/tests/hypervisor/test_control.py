"""Calls of control domains, and console_io."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.calls_rig import ARGUMENT, SELF, _operations


def test_calls_of_control_domains(bench: Bench) -> None:
    for number, version in ((7, 0x03000001), (35, 0x15), (36, 0x15)):
        for given, domid, expected in (
            (version, 0, -errno.EPERM),
            (version, 1, -errno.EPERM),
            (version, 9, -errno.ESRCH if number == 36 else -errno.EPERM),
            (version + 1, 0, -errno.EACCES),
        ):
            argument = bench.write(ARGUMENT, struct.pack("<IIH", 2, given, domid).ljust(128, b"\0"))
            assert bench.call(number, argument) == expected
    for command in range(50):
        known = {*range(17)}
        expected = {0: -errno.ENODEV}.get(command, -errno.EPERM) if command in known else -errno.EINVAL
        assert bench.call(31, command, 0) == expected
    assert bench.call(34, 1, bench.write(ARGUMENT, struct.pack("<H", SELF))) == -errno.EINVAL
    assert bench.call(34, 1, bench.write(ARGUMENT, struct.pack("<H", 9))) == -errno.ESRCH
    assert bench.call(34, 2, 0) == -errno.ENOSYS
    hvm_ops(bench)
    buffers = bench.write(ARGUMENT, bytes(64))
    assert [bench.call(41, domid, 1, buffers) for domid in (0, 1, SELF, 9, 0x10001)] == [
        -errno.EINVAL, -errno.EPERM, -errno.EPERM, -errno.ESRCH, -errno.EPERM,
    ]  # fmt: skip
    assert bench.call(41, 0, 4, buffers) == -errno.E2BIG
    cont = bench.write(ARGUMENT, struct.pack("<IIH", 10, 0x15, 9))
    assert bench.call(49, cont) == -errno.ESRCH
    assert bench.call(49, bench.write(ARGUMENT, struct.pack("<IIH", 11, 0x15, 9))) == -errno.EBADRQC


def hvm_ops(bench: Bench) -> None:
    """``do_hvm_op``: some are for any domain."""
    known = {0: -22, 1: -22, 5: -22, 9: -95, 10: 0, 11: 0, 15: -1, 23: -22, 24: -22, 25: -95}
    _operations(bench, 34, bytes(64), known, 30)
    assert bench.call(34, 10, bench.write(ARGUMENT, bytes(8))) == 0
    assert 0 < int.from_bytes(bench.cpu.read_virtual(bench.va(ARGUMENT), 8), "little") <= bench.machine.clock.ns
    for data, expected in (((0x1000, 0), -22), ((1, 29), -22), ((0xFFF, 28), 0)):
        assert bench.call(34, 11, bench.write(ARGUMENT, struct.pack("<HH28x", *data))) == expected
    assert bench.call(34, 24, 0) == 0
    assert bench.call(34, 1, bench.write(ARGUMENT, struct.pack("<HHIQ", 9, 0, 39, 0))) == -errno.EINVAL
    for command in (9, 15):
        answers = [
            bench.call(34, command, bench.write(ARGUMENT, struct.pack("<H14x", domid))) for domid in (SELF, 1, 9)
        ]
        assert answers == [-errno.EINVAL, -errno.EINVAL, -errno.ESRCH]


def test_console_io(bench: Bench) -> None:
    text = bench.write(ARGUMENT, b"words")
    assert bench.call(18, 0, 5, text) == 0
    assert bench.platform.console == b"words"
    assert bench.call(18, 1, 5, text) == 0
    bench.platform.hv.console.typed = b"typed"
    assert bench.call(18, 1, 3, text) == 3
    assert bench.cpu.read_virtual(text, 5) == b"typds"
    assert bench.call(18, 1, 9, text) == 2
    assert bench.call(18, 2, 0, 0) == -errno.ENOSYS
