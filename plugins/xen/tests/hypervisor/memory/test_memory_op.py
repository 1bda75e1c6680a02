"""``memory_op``: what a domain learns of its memory, gives back, gets and exchanges."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.abi import MemoryOp

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.memory_rig import (
    ARGUMENT,
    DOM0,
    GONE,
    LIST,
    NOBODY,
    OTHER,
    OWN,
    SELF,
    call,
    exchange,
    extents,
    give_back,
    reservation,
    unmap,
    values,
)

MACHPHYS = {
    8: [0xFFFF_8000_0000_0000, 0xFFFF_8040_0000_0000, (1 << 35) - 1],
    4: [0xF580_0000, 0xFFE0_0000, 0x0298_0000 - 1],
}


def test_questions(bench: Bench) -> None:
    hv = bench.platform.hv
    assert bench.call(12, MemoryOp.MAXIMUM_RAM_PAGE, 0) == len(hv.frames)
    for command in (MemoryOp.CURRENT_RESERVATION, MemoryOp.MAXIMUM_RESERVATION, MemoryOp.MAXIMUM_GPFN):
        assert call(bench, command, struct.pack("<H", DOM0)) == -errno.EPERM
        assert call(bench, command, struct.pack("<H", NOBODY)) == -errno.ESRCH
        assert bench.call(12, command, 0) == -errno.EFAULT
        assert call(bench, command | 1 << 6, struct.pack("<H", SELF)) == -errno.EINVAL
    assert call(bench, MemoryOp.MAXIMUM_GPFN, struct.pack("<H", SELF)) == 0
    hv.memory.write(hv.domain.shared_info + hv.abi.max_pfn, bench.words(0x400))
    assert call(bench, MemoryOp.MAXIMUM_GPFN, struct.pack("<H", SELF)) == 0x3FF
    assert call(bench, MemoryOp.MACHPHYS_MAPPING, b"") == 0
    assert values(bench, 3, ARGUMENT) == MACHPHYS[bench.word]
    assert call(bench, MemoryOp.MACHPHYS_MFN_LIST, bench.words(9, bench.va(LIST), 0)) == 0
    assert (values(bench, 3, ARGUMENT)[2] & 0xFF, values(bench, 1)[0]) == (1, hv.m2p >> 12)


def test_a_memory_map_can_be_set_and_read(bench: Bench) -> None:
    regions = [(0, 0x1000, 1), (0x1000, 0x2000, 2)]
    bench.write(LIST, b"".join(struct.pack("<QQI", *region) for region in regions))
    assert call(bench, MemoryOp.MEMORY_MAP, bench.words(4, bench.va(OTHER))) == -errno.ENOSYS
    for domid, count, expected in ((NOBODY, 2, -errno.ESRCH), (DOM0, 2, -errno.EPERM), (SELF, 1025, -errno.EINVAL)):
        assert call(bench, MemoryOp.SET_MEMORY_MAP, bench.words(domid, count, bench.va(LIST))) == expected
    assert call(bench, MemoryOp.SET_MEMORY_MAP, bench.words(SELF, 2, bench.va(LIST))) == 0
    for room in (0, 1, 4):
        assert call(bench, MemoryOp.MEMORY_MAP, bench.words(room, bench.va(OTHER))) == 0
        assert bench.cpu.u32(bench.va(ARGUMENT)) == min(room, 2)
    raw = bench.cpu.read_virtual(bench.va(OTHER), 40)
    assert list(struct.iter_unpack("<QQI", raw)) == regions


def test_what_is_for_others(bench: Bench) -> None:
    physmap = struct.pack("<HHI", SELF, 0, 0).ljust(40, b"\0")
    assert call(bench, MemoryOp.ADD_TO_PHYSMAP, physmap) == -errno.EACCES
    assert call(bench, MemoryOp.ADD_TO_PHYSMAP, struct.pack("<HHI", SELF, 0, 4).ljust(40, b"\0")) == -errno.ENOSYS
    assert call(bench, MemoryOp.ADD_TO_PHYSMAP_BATCH, physmap) == -errno.EACCES
    assert call(bench, MemoryOp.ADD_TO_PHYSMAP_BATCH, struct.pack("<HH", SELF, 3).ljust(40, b"\0")) == -errno.EOPNOTSUPP
    for domid, expected in ((SELF, -errno.EACCES), (OWN, -errno.EACCES), (DOM0, -errno.EACCES), (NOBODY, -errno.ESRCH)):
        assert call(bench, MemoryOp.REMOVE_FROM_PHYSMAP, bench.words(domid, bench.mfn(GONE[0]))) == expected
        assert call(bench, MemoryOp.ADD_TO_PHYSMAP, struct.pack("<HHI", domid, 0, 0).ljust(40, b"\0")) == expected
    assert call(bench, MemoryOp.MACHINE_MEMORY_MAP, bytes(64)) == -errno.EPERM
    assert call(bench, MemoryOp.CLAIM_PAGES, reservation(bench, 0, 1, domid=OWN)) == -errno.EPERM
    for wrong in (reservation(bench, 1, 1, domid=OWN), reservation(bench, 0, 1, 1, OWN), reservation(bench, 0, 1)):
        assert call(bench, MemoryOp.CLAIM_PAGES, wrong) == -errno.EINVAL
    assert call(bench, MemoryOp.GET_VNUMAINFO, struct.pack("<HH", SELF, 0)) == -errno.EOPNOTSUPP
    assert call(bench, MemoryOp.GET_VNUMAINFO, struct.pack("<HH", SELF, 1)) == -errno.EINVAL
    assert call(bench, MemoryOp.RESERVED_DEVICE_MEMORY_MAP, struct.pack("<II", 0, 7)) == 0
    assert bench.cpu.u32(bench.va(ARGUMENT) + 4) == 0
    for domid, expected in ((SELF, -errno.EPERM), (DOM0, -errno.EPERM), (NOBODY, -errno.ESRCH)):
        data = struct.pack("<HHIIIQQ", domid, 1, 0, 1, 0, 0, bench.va(LIST))
        assert call(bench, MemoryOp.ACQUIRE_RESOURCE, data) == expected
        pod = bytes(32) + struct.pack("<HHI", domid, 0, 0)
        assert call(bench, MemoryOp.SET_POD_TARGET, pod) == (-errno.ESRCH if domid == NOBODY else -errno.EPERM)
    for domid, expected in ((SELF, -errno.EPERM), (DOM0, -errno.EINVAL), (NOBODY, -errno.ESRCH)):
        assert call(bench, MemoryOp.ACCESS_OP, struct.pack("<BBHI", 0, 0, domid, 0)) == expected
    for wrong in (struct.pack("<HHIIIQQ", SELF, 1, 0, 1, 0, *rest) for rest in ((1 << 32, 0), ((1 << 32) - 1, 0))):
        assert call(bench, MemoryOp.ACQUIRE_RESOURCE, wrong) == -errno.EINVAL
    buffer = struct.pack("<II", 0, 7) + bench.words(bench.platform.hv.abi.m2p_start, 0)
    assert call(bench, MemoryOp.RESERVED_DEVICE_MEMORY_MAP, buffer) == -errno.EFAULT
    assert bench.call(12, MemoryOp.GET_SHARING_FREED_PAGES, 0) == 0
    for unknown in (8, 20, 22, 29, 40, 63):
        assert bench.call(12, unknown, 0) == -errno.ENOSYS


@pytest.mark.parametrize("command", [MemoryOp.POPULATE_PHYSMAP, MemoryOp.EXCHANGE])
def test_long_lists_are_gone_on_with(bench: Bench, monkeypatch: pytest.MonkeyPatch, command: MemoryOp) -> None:
    monkeypatch.setattr("pvops_xen.hypervisor.memory.reservation.STRETCH", 3)
    mfns = give_back(bench, range(0x320, 0x32A))
    assert bench.platform.hypercalls["memory_op"] == 4
    wanted = reservation(bench, extents(bench, list(range(0x320, 0x32A))), 10)
    if command == MemoryOp.POPULATE_PHYSMAP:
        assert call(bench, command, wanted) == 10
        assert sorted(values(bench, 10)) == sorted(mfns)
        return
    unmap(bench, range(0x330, 0x33A))
    given = reservation(bench, extents(bench, [bench.mfn(pfn) for pfn in range(0x330, 0x33A)], OTHER), 10)
    assert exchange(bench, given, wanted) == (0, 10)
