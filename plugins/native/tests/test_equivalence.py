"""Every native op that has both a hook and a patchlet: both do the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pvops_native.patchlets import NATIVE_PATCHLETS, patchlets_of
from rig import Rig, bench

from pvops_core.ops import LAYOUTS
from pvops_core.testing.equivalence import Bench, check_equivalence, pairs

WANTED = ("2.6.23-lapic", "2.6.23-pae", "2.6.24", "2.6.24-pae", "6.1-64", "6.1-32")


@pytest.fixture(scope="module", params=WANTED)
def there(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with Rig(request.param) as rig:
        yield bench(rig)


def test_hook_and_patchlet_agree(there: Bench) -> None:
    ops = pairs(there)
    assert set(ops) == set(patchlets_of(there.layout))
    for op in ops:
        if op == "irq_enable_sysexit":
            there.cpu.insn.wrmsr(0x174, 0x60)
        for seed in range(6):
            check_equivalence(there, op, seed)


def test_every_patchlet_is_for_some_layout() -> None:
    assert all(any(patchlet.serves(layout) for layout in LAYOUTS.values()) for patchlet in NATIVE_PATCHLETS)
