"""What Xen 4.17 answers a domain without rights: every number, and every operation of those that have some."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.abi import Hypercall
from pvops_xen.hypervisor.state import EntryPoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from conftest import Bench

ARGUMENT, OTHER = 0x110, 0x340
SELF = 0x7FF0

# Every number with zeroes for arguments: an address of 0 is not mapped. What takes none is left out: iret leaves.
BARE = {
    0: 0,  # set_trap_table: no table clears it
    1: 0,  # mmu_update: no update of dom0's memory
    2: 0, 3: 0, 4: 0, 5: 0,
    6: 0,  # sched_op_compat: yield
    7: -errno.EFAULT, 8: 0, 9: 0, 10: -errno.EINVAL, 11: -errno.ENOSYS,
    12: 0,  # memory_op: increase_reservation without a structure does none
    13: 0, 14: -errno.EINVAL, 15: 0, 16: -errno.EFAULT, 17: 4 << 16 | 17, 18: 0, 19: -errno.EFAULT,
    20: 0, 21: 0, 22: -errno.EPERM, 24: -errno.EFAULT, 25: 0, 26: -errno.EPERM, 27: -errno.ENOSYS,
    28: -errno.EFAULT, 29: 0, 30: -errno.EFAULT, 31: -errno.ENODEV, 32: -errno.EFAULT, 33: -errno.ENOSYS,
    34: -errno.EFAULT, 35: -errno.EFAULT, 36: -errno.EFAULT, 37: -errno.EPERM, 38: -errno.ENOSYS, 39: -errno.ENOSYS,
    40: -errno.EOPNOTSUPP, 41: -errno.ENODATA, 42: -errno.EPERM,
    48: -errno.EPERM, 49: -errno.EFAULT,
}  # fmt: skip
DIFFERENT_ON_32 = {25: -errno.ENOSYS}


@pytest.mark.parametrize("number", [number for number in range(65) if number != Hypercall.IRET])
def test_a_bare_number(bench: Bench, number: int) -> None:
    expected = BARE.get(number, -errno.ENOSYS)
    if bench.word == 4:
        expected = DIFFERENT_ON_32.get(number, expected)
    assert bench.call(number, 0, 0, 0, 0, 0, 0) == expected


def _operations(bench: Bench, number: int, data: bytes, expected: Mapping[int, int], limit: int) -> None:
    found = {}
    for command in range(limit):
        argument = bench.write(ARGUMENT, data)
        found[command] = bench.call(number, command, argument)
    assert found == {command: expected.get(command, -errno.ENOSYS) for command in range(limit)}


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


def test_the_calls_before_3_0_3(bench: Bench) -> None:
    """The command comes with the structure, and only some are known."""
    assert bench.call(19, bench.write(ARGUMENT, bench.words(6, 1))) == 0
    assert bench.platform.hv.domain.vcpus[0].iopl == 1
    assert bench.call(19, bench.write(ARGUMENT, bench.words(28, 0))) == -errno.EINVAL
    assert bench.call(19, bench.write(ARGUMENT, bench.words(99, 0))) == -errno.ENOSYS
    assert bench.call(16, bench.write(ARGUMENT, struct.pack("<5I", 7, 0, 0, 0, 0))) == 0
    assert bench.cpu.u32(bench.va(ARGUMENT) + 8) == 1
    assert bench.call(16, bench.write(ARGUMENT, struct.pack("<5I", 11, 0, 0, 0, 0))) == -errno.ENOSYS
    assert bench.call(6, 3, 0) == -errno.ENOSYS


def test_event_channel_op(bench: Bench) -> None:
    """With a structure of zeroes: dom0, port 0, vCPU 0."""
    answers = {
        0: -errno.EINVAL, 1: 0, 2: -errno.EPERM, 3: -errno.EINVAL, 4: -errno.EINVAL, 5: -errno.EPERM,
        6: -errno.EPERM, 7: 0, 8: -errno.EINVAL, 9: 0, 10: -errno.EPERM, 11: -errno.EINVAL, 12: -errno.EOPNOTSUPP,
        13: -errno.ENOSYS, 14: -errno.EPERM,
    }  # fmt: skip
    _operations(bench, 32, bytes(64), answers, 20)


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


def test_a_structure_that_ends_beyond_mapped_memory(bench: Bench) -> None:
    """Xen reads a structure as a whole, in the width of the guest."""
    sizes = {
        (35, None): 136,
        (7, None): 136,
        (36, None): 144,
        (33, 8): bench.word + 8,
        (33, 13): 40 if bench.word == 8 else 36,
    }
    sizes |= {
        (33, 15): 2,
        (33, 20): 16,
        (33, 25): 12,
        (33, 30): 4,
        (16, None): 28,
        (19, None): 24 if bench.word == 8 else 16,
    }
    sizes |= {(24, 10): 16, (24, 8): 16 if bench.word == 8 else 12, (30, 1): 4, (28, 0): 2 * bench.word, (29, 4): 8}
    bench.set_mapping(OTHER, writable=True)
    nothing = (0, 0) if bench.word == 8 else (0, 0, 0)
    assert bench.call(14, bench.va(OTHER + 1), *nothing) == 0
    end = bench.va(OTHER + 1)
    for (number, command), size in sizes.items():
        calls = []
        for at in (end - size, end - size + 1):
            arguments = (at,) if command is None else (command, at) if number != 24 else (command, 0, at)
            calls.append(bench.call(number, *arguments))
        assert calls[0] != -errno.EFAULT, (number, command)
        assert calls[1] == -errno.EFAULT, (number, command)


def test_what_is_looked_at_before_the_argument(bench: Bench) -> None:
    for number, command in ((33, 24), (33, 29), (29, 7)):
        assert bench.call(number, command, 0x1000) == -errno.EPERM


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


def test_a_guest_that_runs_is_ticked_and_one_that_sleeps_is_not_woken(bench64: Bench) -> None:
    hv = bench64.platform.hv
    hv.domain.vcpus[0].event = EntryPoint(0, bench64.write(0x108, b"\x0f\x0b"), mask_events=True)
    bench64.call(32, 1, bench64.write(ARGUMENT, struct.pack("<3I", 0, 0, 0)))
    assert bench64.run("b81d000000bf010000000f05 ebfe").reason == "dead"
    hv.memory.set_u8(hv.domain.vcpus[0].info + 1, 0)
    bench64.cpu.wake()
    stop = bench64.run("ebfe")
    assert stop.detail.startswith("Unhandled: vec 6"), "at 10 ms its callback is entered"
    assert 10_000_000 <= bench64.machine.clock.ns < 11_000_000


def test_times_that_are_mistakes(bench: Bench) -> None:
    state, now = bench.platform.hv.domain.vcpus[0], bench.machine.clock

    def set_timer(timeout: int) -> int | None:
        args = (timeout,) if bench.word == 8 else (timeout & 0xFFFF_FFFF, timeout >> 32)
        assert bench.call(15, *args) == 0
        return state.singleshot

    assert set_timer(5) == 5
    assert set_timer(0) is None
    for wrong in (1 << 63, (1 << 64) - 1, 1 << 51):
        assert set_timer(wrong) == now.ns + 100_000_000
    assert bench.call(24, 8, 0, bench.write(ARGUMENT, struct.pack("<QI", 1 << 63, 0))) == 0
    assert state.singleshot == 0
