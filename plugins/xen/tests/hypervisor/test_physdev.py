"""Interrupts of devices, as a domain without rights may ask for them."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.calls_rig import ARGUMENT, OTHER, SELF, _operations


def test_physdev_op(bench: Bench) -> None:
    """With a structure of zeroes."""
    refused = dict.fromkeys((8, 9, 10, 13, 14, 15, 16, 19, 20, 21, 24, 25, 26, 27, 29, 30, 31), -errno.EPERM)
    answers = {4: 0, 5: 0, 6: 0, 7: 0, 12: -errno.EINVAL, 17: -errno.EINVAL, 23: 0, 28: -errno.EINVAL}
    _operations(bench, 33, bytes(64), refused | answers, 40)
    assert bench.call(33, 6, bench.write(ARGUMENT, struct.pack("<I", 4))) == -errno.EINVAL
    assert bench.call(33, 5, bench.write(ARGUMENT, struct.pack("<II", 256, 0))) == -errno.EINVAL
    assert bench.call(33, 7, bench.write(ARGUMENT, bench.words(0, 65537))) == -errno.EINVAL
    frame = bench.write(ARGUMENT, bench.words(bench.mfn(OTHER)))
    assert [bench.call(33, 28, frame), bench.call(33, 17, frame)] == [0, -errno.EBUSY]


def test_interrupt_numbers_are_given_once(bench: Bench) -> None:
    """``get_free_pirq``: GSIs from 16 up, anything else from the last one down."""

    def free(kind: int) -> int:
        argument = bench.write(ARGUMENT, struct.pack("<II", kind, 0))
        result = bench.call(33, 23, argument)
        return result or bench.cpu.u32(argument + 4)

    assert [free(kind) for kind in (1, 1, 0, 7)] == [16, 17, 255, 254]
    for _ in range(300):
        last = free(1)
    assert last == -errno.ENOSPC


@pytest.mark.parametrize(
    ("domid", "expected"), [(SELF, -errno.EPERM), (1, -errno.EPERM), (0, -errno.EPERM), (9, -errno.ESRCH)]
)
def test_interrupts_of_a_domain(bench: Bench, domid: int, expected: int) -> None:
    for command in (13, 14):
        assert bench.call(33, command, bench.write(ARGUMENT, struct.pack("<H", domid).ljust(48, b"\0"))) == expected
    multi = struct.pack("<HHI", domid, 0, 4).ljust(32 if bench.word == 8 else 28, b"\0") + struct.pack("<Q", 1)
    assert bench.call(33, 13, bench.write(ARGUMENT, multi)) == -errno.EINVAL
