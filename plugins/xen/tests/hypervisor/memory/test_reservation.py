"""Frames that go and come."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from pvops_xen.hypervisor.abi import MemoryOp
from pvops_xen.hypervisor.memory.frames import FREE

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.memory_rig import (
    DOM0,
    GONE,
    LIST,
    NOBODY,
    OWN,
    SELF,
    call,
    extents,
    give_back,
    reservation,
    unmap,
    values,
)


def test_frames_go_and_come(bench: Bench) -> None:
    have = call(bench, MemoryOp.CURRENT_RESERVATION, struct.pack("<H", SELF))
    mfns = give_back(bench, GONE)
    assert call(bench, MemoryOp.CURRENT_RESERVATION, struct.pack("<H", OWN)) == have - len(mfns)
    assert all(bench.platform.hv.frames.owner[mfn] == FREE for mfn in mfns)
    wanted = reservation(bench, extents(bench, list(GONE)), len(GONE))
    assert call(bench, MemoryOp.POPULATE_PHYSMAP, wanted) == len(mfns)
    new = values(bench, len(mfns))
    assert sorted(new) == sorted(mfns)
    assert [bench.platform.hv.pfn_of(mfn) for mfn in new] == list(GONE)
    assert call(bench, MemoryOp.INCREASE_RESERVATION, wanted) == 0, "it has all that it may have"
    assert call(bench, MemoryOp.MAXIMUM_RESERVATION, struct.pack("<H", SELF)) == have


def test_what_cannot_be_done_ends_the_call_with_what_was(bench: Bench) -> None:
    unmap(bench, GONE)
    mfns = [bench.mfn(GONE[0]), 1, bench.mfn(GONE[1])]
    wanted = reservation(bench, extents(bench, mfns), 3)
    assert call(bench, MemoryOp.DECREASE_RESERVATION, wanted) == 1
    assert call(bench, MemoryOp.DECREASE_RESERVATION | 2 << 6, wanted) == 3, "gone on with after the second"
    assert call(bench, MemoryOp.DECREASE_RESERVATION | 3 << 6, wanted) == 3
    for domid in (NOBODY, DOM0):
        assert call(bench, MemoryOp.DECREASE_RESERVATION, reservation(bench, 0, 1, domid=domid)) == 0
    into_xens = (1 << 47) - 8 if bench.word == 8 else 0xF580_0000 - 4
    assert call(bench, MemoryOp.INCREASE_RESERVATION, reservation(bench, into_xens, 3)) == 0
    assert call(bench, MemoryOp.POPULATE_PHYSMAP, reservation(bench, bench.va(LIST), 1, order=10)) == 0
    assert call(bench, MemoryOp.POPULATE_PHYSMAP, reservation(bench, 0, 1)) == 0, "its list is not mapped"
    assert bench.call(12, MemoryOp.POPULATE_PHYSMAP, 0) == 0
    assert bench.call(12, MemoryOp.POPULATE_PHYSMAP | 5 << 6, 0) == 5


def test_commands_that_say_how_much_is_done(bench: Bench) -> None:
    """Those of the architecture are then none, of those that go on the number is looked at, others take none."""
    physmap = struct.pack("<HHI", SELF, 0, 0).ljust(40, b"\0")
    expected = {
        MemoryOp.MAXIMUM_RAM_PAGE: -errno.EINVAL, MemoryOp.CURRENT_RESERVATION: -errno.EINVAL,
        MemoryOp.MEMORY_MAP: -errno.ENOSYS, MemoryOp.MACHPHYS_MAPPING: -errno.ENOSYS,
        MemoryOp.MACHPHYS_MFN_LIST: -errno.ENOSYS, MemoryOp.SET_MEMORY_MAP: -errno.ENOSYS,
        MemoryOp.EXCHANGE: -errno.EINVAL, MemoryOp.REMOVE_FROM_PHYSMAP: -errno.EINVAL,
        MemoryOp.ADD_TO_PHYSMAP: -errno.EACCES, MemoryOp.ADD_TO_PHYSMAP_BATCH: -errno.EACCES,
        MemoryOp.CLAIM_PAGES: -errno.EINVAL, MemoryOp.GET_VNUMAINFO: -errno.EINVAL,
    }  # fmt: skip
    assert {command: call(bench, command | 1 << 6, physmap) for command in expected} == expected
    assert call(bench, MemoryOp.ADD_TO_PHYSMAP | 1 << 22, physmap) == -errno.EDOM
