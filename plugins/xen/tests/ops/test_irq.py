"""The interrupt mask in the shared page."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import Mock

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.ops_rig import TARGET, ops_of


def test_a_kernel_without_events_has_them_masked_and_stays_as_it_is(bench64: Bench) -> None:
    bench, ops = bench64, ops_of(bench64)
    dummy = bench.mfn(TARGET) << 12
    bench.write(TARGET, bytes(4096))
    ops.linux = Mock(no_events=dummy, vcpu_info=lambda _cpu: dummy)
    assert ops.save_fl(bench.cpu) == 0
    ops.irq_disable(bench.cpu)
    assert bench.platform.hv.memory.read(dummy, 4096) == bytes(4096)
    ops.linux = Mock(no_events=dummy + 4096, vcpu_info=lambda _cpu: dummy)
    assert ops.save_fl(bench.cpu) == 0x200
    ops.irq_disable(bench.cpu)
    assert ops.save_fl(bench.cpu) == 0
    assert bench.platform.hv.memory.u8(dummy + 1) == 1


def test_the_interrupt_mask(bench: Bench) -> None:
    ops, cpu = ops_of(bench), bench.cpu
    info = bench.platform.hv.domain.vcpus[0].info
    assert ops.save_fl(cpu) == 0
    ops.irq_enable(cpu)
    assert (ops.save_fl(cpu), bench.platform.hv.memory.u8(info + 1)) == (0x200, 0)
    ops.irq_disable(cpu)
    assert ops.save_fl(cpu) == 0
    ops.restore_fl(cpu, 0x200)
    assert ops.save_fl(cpu) == 0x200
