"""Arguments of memory_op."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pvops_xen.hypervisor.abi import MemoryOp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from conftest import Bench

ARGUMENT, LIST, OTHER = 0x110, 0x111, 0x112
SELF, OWN, DOM0, NOBODY = 0x7FF0, 1, 0, 9
GONE = range(0x300, 0x310)


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


def exchange(bench: Bench, given: bytes, taken: bytes, done: int = 0) -> tuple[int, int]:
    result = call(bench, MemoryOp.EXCHANGE, given + taken + bench.words(done))
    at = bench.va(ARGUMENT) + len(given) + len(taken)
    return result, int.from_bytes(bench.cpu.read_virtual(at, bench.word), "little")
