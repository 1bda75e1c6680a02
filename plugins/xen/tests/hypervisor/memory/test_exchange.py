"""Frames that are exchanged for others."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.memory_rig import (
    DOM0,
    GONE,
    LIST,
    NOBODY,
    OTHER,
    exchange,
    extents,
    give_back,
    reservation,
    unmap,
    values,
)


def a_row(bench: Bench) -> list[int]:
    """Places of eight frames that lie in a row in the machine, none of which the test needs."""
    kept = {*range(0x100, 0x130), *range(0x200, 0x220), *GONE}
    places = {mfn: pfn for pfn, mfn in enumerate(bench.platform.hv.domain.p2m) if pfn not in kept}
    first = next(mfn for mfn in range(8, 1024, 8) if all(mfn + offset in places for offset in range(8)))
    return [places[first + offset] for offset in range(8)]


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
