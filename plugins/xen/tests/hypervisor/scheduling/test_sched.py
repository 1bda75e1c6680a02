"""Scheduling: shutdown, watchdogs, polls."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.calls_rig import ARGUMENT, OTHER


def test_sched_op(bench: Bench) -> None:
    """All but block and shutdown, which end what the test does."""
    answers = {0: 0, 3: 0, 4: -errno.EPERM, 5: 0, 6: 1, 7: -errno.EPERM}
    for command in (0, 3, 4, 5, 6, 7, 8, 9, 99):
        argument = bench.write(ARGUMENT, struct.pack("<QIIQ", bench.va(OTHER), 1, 0, 1))
        if command == 3:
            argument = bench.write(ARGUMENT, bench.words(bench.va(OTHER), 0, 1, 0))
        elif command in {4, 6}:
            argument = bench.write(ARGUMENT, bytes(24))
        assert bench.call(29, command, argument) == answers.get(command, -errno.ENOSYS), command
    assert bench.call(29, 4, bench.write(ARGUMENT, struct.pack("<II", 9, 0))) == -errno.ESRCH


def test_watchdogs(bench: Bench) -> None:
    def watchdog(number: int, seconds: int) -> int:
        return bench.call(29, 6, bench.write(ARGUMENT, struct.pack("<II", number, seconds)))

    assert [watchdog(0, 10), watchdog(0, 20), watchdog(0, 30)] == [1, 2, -errno.ENOSPC]
    assert [watchdog(3, 0), watchdog(2, 0), watchdog(2, 5)] == [-errno.EINVAL, 0, -errno.EINVAL]
    bench.platform.hv.domain.watchdogs[1] = 1_000_000
    stop = bench.run("ebfe")
    assert (stop.reason, stop.detail) == ("crash", "a watchdog of the guest's has expired")


def test_an_announced_reason_is_the_one_that_counts(bench: Bench) -> None:
    assert bench.call(29, 5, bench.write(ARGUMENT, struct.pack("<I", 1))) == 0
    assert bench.call(29, 5, bench.write(ARGUMENT, struct.pack("<I", 3))) == 0
    assert bench.call(29, 2, bench.write(ARGUMENT, struct.pack("<I", 0))) == 0
    assert bench.machine.run(max_ns=1000).reason == "reboot"


def test_a_poll_looks_at_one_thing_after_the_other(bench: Bench) -> None:
    """``do_poll``: an upcall that is due first, then each port; what comes later is not looked at."""
    hv = bench.platform.hv

    def poll(*ports: int, handle: int | None = None, count: int | None = None) -> int:
        where = bench.write(OTHER, struct.pack(f"<{len(ports)}I", *ports)) if handle is None else handle
        fields = bench.words(where) + struct.pack("<I", len(ports) if count is None else count)
        return bench.call(29, 3, bench.write(ARGUMENT, fields.ljust(2 * bench.word, b"\0") + struct.pack("<Q", 1)))

    port = bench.write(ARGUMENT, struct.pack("<II", 0, 0))
    assert bench.call(32, 7, port) == 0
    ipi = bench.cpu.u32(port + 4)
    assert poll(ipi, 999) == -errno.EINVAL
    assert poll(ipi, 5) == -errno.EINVAL, "a port that is closed"
    assert poll(handle=hv.abi.m2p_start, count=1) == -errno.EFAULT
    assert poll(handle=0x1000, count=1) == -errno.EFAULT
    assert bench.call(32, 4, bench.write(ARGUMENT, struct.pack("<I", ipi))) == 0
    assert poll(ipi, 999) == 0, "the first is pending"
    assert poll(999, ipi) == -errno.EINVAL
    hv.memory.set_u8(hv.domain.vcpus[0].info + 1, 0)
    assert poll(999) == 0, "an upcall is due"
