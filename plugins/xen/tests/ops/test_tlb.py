"""Masks of processors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.machine import PageFault

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.ops_rig import ops_of


def test_a_mask_of_processors_is_read_no_further_than_it_is_long(bench: Bench) -> None:
    """The mask is the last word before a page that is not mapped."""
    ops = ops_of(bench)
    last = bench.va(0x110) + 4096 - bench.word
    bench.write(0x110, bench.words(1), 4096 - bench.word)
    address = bench.va(0x111)
    assert bench.call(14, address, 0, 0, *((0,) if bench.word == 4 else ())) == 0
    with pytest.raises(PageFault):
        bench.cpu.u32(address)
    before = bench.platform.hypercalls.total()
    ops.flush_tlb_others(bench.cpu, last, 0x1000)  # nobody else is there
    assert bench.platform.hypercalls.total() == before
