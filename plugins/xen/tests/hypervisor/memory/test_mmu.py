"""Stores by the short way do what the long way does, and leave to it what is none of theirs."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import pytest
from pvops_xen.hypervisor.memory import mmu

from pvops_core.machine import MachineKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Bench

TABLE, WRITTEN, OTHER, REQUEST = 0x300, 0x301, 0x302, 0x310
STEPS = 400


def ready(bench: Bench) -> Bench:
    """A pinned first-level table, and a second one that nobody uses as such."""
    for pfn in (TABLE, OTHER):
        assert bench.set_mapping(pfn, writable=False) == 0
    assert bench.mmuext(0, bench.mfn(TABLE)) == 0
    return bench


def requests(bench: Bench, rng: random.Random) -> tuple[int, int]:
    """An element as a kernel sends it, or as nobody should."""
    own = [bench.mfn(TABLE)] * 8 + [bench.mfn(pfn) for pfn in (WRITTEN, OTHER, REQUEST)]
    table = rng.choice([*own, 0, len(bench.platform.hv.frames) + 5, 1 << 40])
    frames = [bench.mfn(pfn) for pfn in (TABLE, WRITTEN, OTHER, REQUEST, 0x10, 0x20)]
    frame = rng.choice([*frames, 0, 1, len(bench.platform.hv.frames), (1 << 40) - 1])
    flags = rng.choice([0, 1, 1, 3, 3, 3, 5, 7, 0x61, 0x63, 0x67, 0x163, 0x83, 1 << 62 | 3, 1 << 63 | 3])
    value = rng.choice([frame << 12 | flags, frame << 12 | flags, 0, rng.getrandbits(64)])
    return table << 12 | rng.randrange(16) << 3 | rng.choice([0] * 8 + [1, 2, 3, 4, 7]), value


def played(bench: Bench, seed: int) -> list[object]:
    """What each of some calls gave, and what they left."""
    rng = random.Random(seed)
    hv, seen = bench.platform.hv, []
    for _ in range(STEPS):
        ptr, value = requests(bench, rng)
        at = bench.write(REQUEST, struct.pack("<QQ", ptr, value)) if rng.random() < 0.9 else rng.getrandbits(64)
        pdone = rng.choice([0] * 6 + [bench.va(REQUEST) + 64])
        owner = rng.choice([0x7FF0] * 8 + [0, 1, 0x7FF1, 0x7FF2, 0x10000 | 0x7FF0])
        seen.append(bench.call(1, at, rng.choice([1, 1, 1, 1, 0, 2]), pdone, owner))
    return [*seen, hv.frames.save(), hv.stats.page_table_updates, hv.memory.read(0, hv.memory.size), hv.stats.messages]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", [MachineKind.X86_64, MachineKind.PAE])
def test_both_ways_come_to_the_same(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, kind: MachineKind, seed: int
) -> None:
    short = ready(make_bench(kind))
    taken, update_one = [0], mmu.update_one

    def counted(*arguments: object) -> int | None:
        result = update_one(*arguments)  # type: ignore[arg-type]
        taken[0] += result is not None
        return result

    monkeypatch.setattr(mmu, "update_one", counted)
    found = played(short, seed)
    monkeypatch.setattr(mmu, "update_one", lambda *_: None)
    assert found == played(ready(make_bench(kind)), seed)
    assert STEPS // 10 < taken[0] < STEPS // 2
