"""Frames: translation there and back, and foreign ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.ops_rig import ops_of


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pfn=st.integers(0, 2000), flags=st.integers(0, 0xFFF))
def test_translation_goes_there_and_back(bench64: Bench, pfn: int, flags: int) -> None:
    ops, value = ops_of(bench64), pfn << 12 | flags
    stored = ops.make_pte(bench64.cpu, value)
    if not flags & 1:
        assert stored == value
    elif pfn < bench64.platform.hv.domain.nr_pages:
        assert stored >> 12 == bench64.mfn(pfn)
        assert ops.pte_val(bench64.cpu, stored) == value
    else:
        assert stored == 0


def test_a_foreign_frame_is_not_present(bench: Bench) -> None:
    ops = ops_of(bench)
    assert ops.pte_val(bench.cpu, bench.platform.hv.m2p | 0x63) == 0x62
    assert ops.pte_val(bench.cpu, 0x7FFFFFF << 12 | 0x63) == 0x62
