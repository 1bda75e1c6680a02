"""The processor's speed, from the time record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.ops_rig import ops_of


@pytest.mark.parametrize(("shift", "multiplier", "khz"), [(0, 0x80000000, 2_000_000), (2, 0x80000000, 500_000)])
def test_the_processors_speed_is_read_from_the_time_record(bench: Bench, shift: int, multiplier: int, khz: int) -> None:
    ops, cpu = ops_of(bench), bench.cpu
    record = ops.info(cpu) + 32
    memory = bench.machine.memory
    memory.set_u32(record + 24, multiplier)
    memory.set_u8(record + 28, shift)
    assert ops.get_cpu_khz(cpu) == khz
    memory.set_u8(record + 28, 256 - 1 - shift)  # a negative shift
    assert ops.get_cpu_khz(cpu) == 2_000_000 << shift + 1
