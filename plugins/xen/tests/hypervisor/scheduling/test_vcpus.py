"""Operations on vCPUs."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.calls_rig import ARGUMENT, OTHER


def test_vcpu_op(bench: Bench) -> None:
    """Of the caller's own vCPU, with a structure of zeroes; what ends the test is left out."""
    answers = {
        0: -errno.EEXIST, 1: 0, 3: 1, 4: 0, 5: 0, 6: -errno.EINVAL, 7: 0, 8: 0, 9: 0, 10: -errno.EINVAL,
        11: -errno.EINVAL, 12: -errno.EINVAL, 13: 0,
    }  # fmt: skip
    for command in (*range(2), *range(3, 20)):
        argument = bench.write(ARGUMENT, bytes(64))
        assert bench.call(24, command, 0, argument) == answers.get(command, -errno.ENOSYS), command
        assert bench.call(24, command, 1, argument) == -errno.ENOENT
    assert bench.call(24, 11, 0, 0) == 0
    for offset in (1, bench.word - 1, 4096 - 63, 4096):
        where = bench.write(ARGUMENT, struct.pack("<QII", bench.mfn(OTHER), offset, 0))
        assert bench.call(24, 10, 0, where) == -errno.ENXIO


def test_an_nmi_comes_to_the_handler_and_is_lost_without_one(bench: Bench) -> None:
    assert bench.call(24, 11, 0, 0) == 0
    assert bench.call(28, 0, bench.write(ARGUMENT, bench.words(bench.write(0x108, b"\x0f\x0b")))) == 0
    assert bench.call(24, 11, 0, 0) == 0
    stop = bench.run("ebfe")
    assert stop.detail.startswith("Unhandled: vec 6")
    assert bench.platform.traps["nmi"] == 1
    assert bench.call(28, 1, 0) == 0
    assert bench.call(28, 2, 0) == -errno.ENOSYS
