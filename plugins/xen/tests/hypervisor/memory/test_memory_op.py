"""``memory_op``: what a domain learns of its memory, gives back, gets and exchanges."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.abi import MemoryOp
from pvops_xen.hypervisor.memory.frames import FREE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from conftest import Bench

ARGUMENT, LIST, OTHER = 0x110, 0x111, 0x112
SELF, OWN, DOM0, NOBODY = 0x7FF0, 1, 0, 9
GONE = range(0x300, 0x310)
MACHPHYS = {
    8: [0xFFFF_8000_0000_0000, 0xFFFF_8040_0000_0000, (1 << 35) - 1],
    4: [0xF580_0000, 0xFFE0_0000, 0x0298_0000 - 1],
}


def call(bench: Bench, command: int, data: bytes) -> int:
    return bench.call(12, command, bench.write(ARGUMENT, data))


def extents(bench: Bench, values: list[int], pfn: int = LIST) -> int:
    return bench.write(pfn, bench.words(*values))


def reservation(bench: Bench, start: int, count: int, order: int = 0, domid: int = SELF, flags: int = 0) -> bytes:
    data = bench.words(start, count) + struct.pack("<IIH", order, flags, domid)
    return data.ljust(32 if bench.word == 8 else 20, b"\0")


def unmap(bench: Bench, pfns: Iterable[int]) -> None:
    for pfn in pfns:
        assert bench.call(14, bench.va(pfn), *((0, 0) if bench.word == 8 else (0, 0, 0))) == 0


def values(bench: Bench, count: int, pfn: int = LIST) -> list[int]:
    raw = bench.cpu.read_virtual(bench.va(pfn), count * bench.word)
    return list(struct.unpack(f"<{count}{'Q' if bench.word == 8 else 'I'}", raw))


def give_back(bench: Bench, pfns: Iterable[int]) -> list[int]:
    pfns = list(pfns)
    unmap(bench, pfns)
    mfns = [bench.mfn(pfn) for pfn in pfns]
    assert call(bench, MemoryOp.DECREASE_RESERVATION, reservation(bench, extents(bench, mfns), len(mfns))) == len(mfns)
    return mfns


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


def a_row(bench: Bench) -> list[int]:
    """Places of eight frames that lie in a row in the machine, none of which the test needs."""
    kept = {*range(0x100, 0x130), *range(0x200, 0x220), *GONE}
    places = {mfn: pfn for pfn, mfn in enumerate(bench.platform.hv.domain.p2m) if pfn not in kept}
    first = next(mfn for mfn in range(8, 1024, 8) if all(mfn + offset in places for offset in range(8)))
    return [places[first + offset] for offset in range(8)]


def exchange(bench: Bench, given: bytes, taken: bytes, done: int = 0) -> tuple[int, int]:
    result = call(bench, MemoryOp.EXCHANGE, given + taken + bench.words(done))
    at = bench.va(ARGUMENT) + len(given) + len(taken)
    return result, int.from_bytes(bench.cpu.read_virtual(at, bench.word), "little")


@pytest.mark.parametrize("order", [0, 2, 3])
def test_frames_are_exchanged_for_some_in_a_row(bench: Bench, order: int) -> None:
    hv = bench.platform.hv
    give_back(bench, a_row(bench))
    unmap(bench, GONE)
    size = 1 << order
    old = [bench.mfn(pfn) for pfn in GONE[:8]]
    places = list(GONE[:8:size])
    given = reservation(bench, extents(bench, old), 8)
    taken = reservation(bench, extents(bench, places, OTHER), 8 // size, order)
    assert exchange(bench, given, taken) == (0, 8)
    new = values(bench, 8 // size, OTHER)
    for first, place in zip(new, places, strict=True):
        assert first % size == 0
        assert [hv.pfn_of(first + offset) for offset in range(size)] == list(range(place, place + size))


def test_an_exchange_that_cannot_be_changes_nothing(bench: Bench) -> None:
    mapped = [bench.mfn(pfn) for pfn in GONE[:2]]
    given = reservation(bench, extents(bench, mapped), 2)
    taken = reservation(bench, extents(bench, list(GONE[:2]), OTHER), 2)
    assert exchange(bench, given, taken) == (-errno.EINVAL, 0), "they are in use"
    unmap(bench, GONE)
    assert exchange(bench, given, taken) == (-errno.ENOMEM, 0), "there are no others"
    for wrong in (
        (given, reservation(bench, bench.va(OTHER), 3)),
        (reservation(bench, bench.va(LIST), 1 << 30, 3), reservation(bench, bench.va(OTHER), 1 << 31, 2)),
    ):
        assert exchange(bench, *wrong)[0] < 0
    assert exchange(bench, given, taken, done=3)[0] == -errno.EINVAL
    large = reservation(bench, bench.va(LIST), 1, 10)
    assert exchange(bench, large, large)[0] == -errno.EPERM
    for domid, expected in ((DOM0, -errno.EPERM), (NOBODY, -errno.ESRCH)):
        other = reservation(bench, bench.va(LIST), 1, domid=domid)
        assert exchange(bench, other, other)[0] == expected


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
