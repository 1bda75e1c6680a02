"""Set-up: what is asked of Xen first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_xen.hypervisor.abi import VmAssist

if TYPE_CHECKING:
    from conftest import Bench
from plugins.xen.tests.ops_rig import ops_of


def test_setup_asks_for_help_and_says_where_to_enter_the_kernel(bench: Bench) -> None:
    ops, cpu, hv = ops_of(bench), bench.cpu, bench.platform.hv
    ops.env.symbols.update({"xen_hypervisor_callback": bench.va(0x101), "xen_failsafe_callback": bench.va(0x102)})
    cpu.rsp = bench.va(0x110) + 4096
    ops.arch_setup(cpu)
    assert hv.state(cpu).iopl == 1, "the kernel may use ports"
    assert hv.domain.assisted(VmAssist.WRITABLE_PAGETABLES)
    assert hv.domain.assisted(VmAssist.PAE_EXTENDED_CR3)
    assert hv.domain.assisted(VmAssist.FOUR_GB_SEGMENTS) == (bench.word == 4)
