"""A spare page is one behind those used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from pvops_core.scenarios.kernels import pagetable_reserve
from pvops_core.scenarios.kernels.pagetable_reserve import Buffer
from pvops_core.scenarios.witness import Fault

if TYPE_CHECKING:
    from pvops_core.scenarios.kernels.run import KernelRun


def test_a_spare_page_is_one_behind_those_used(died: KernelRun) -> None:
    buffer = Buffer(start=0x100, end=0x110, top=0x112, spare=(0x110061, 0x111061), base=0xFFFF880000000000)
    fault = Fault(14, 3, 0x1000000, buffer.base + 0x111000, 0x111061, 5)
    run = attrs.evolve(died, faults=(fault,))
    assert pagetable_reserve.without_the_hook(run, buffer).held
    assert buffer.read_only == 2
    for other in (attrs.evolve(fault, address=buffer.base + 0x10F000), attrs.evolve(fault, vector=13)):
        assert not pagetable_reserve.without_the_hook(attrs.evolve(died, faults=(other,)), buffer).held
    assert not pagetable_reserve.without_the_hook(run, attrs.evolve(buffer, spare=(0x110063, 0x111061))).held
