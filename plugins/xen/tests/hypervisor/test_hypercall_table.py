"""What Xen 4.17 answers a domain without rights: every number, and every operation of those that have some."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.abi import Hypercall

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.calls_rig import ARGUMENT, OTHER, _operations

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
