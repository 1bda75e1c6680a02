"""The ways out of the kernel."""

from __future__ import annotations

import pytest
from rig import STACK, Rig

from pvops_core.machine import GuestFault


def test_interrupt_return(rig: Rig) -> None:
    rig.cpu.rsp = rig.at(STACK) + 0x800
    words = [rig.at(0x8800), rig.cpu.selector("cs"), 0x202]
    if rig.kind.bits == 64:
        words += [rig.at(STACK) + 0x900, rig.cpu.selector("ss")]
    for word in reversed(words):
        rig.cpu.push(word)
    rig.ops.iret(rig.cpu)
    assert (rig.cpu.rip, rig.cpu.rflags) == (rig.at(0x8800), 0x202)


@pytest.mark.parametrize("layout", ["2.6.23", "2.6.24-pae"])
def test_sysexit(layout: str) -> None:
    with Rig(layout) as rig:
        rig.cpu.set("edx", 0x40_0000)
        rig.cpu.set("ecx", 0x40_1800)
        with pytest.raises(GuestFault):
            rig.ops.irq_enable_sysexit(rig.cpu)
        rig.cpu.insn.wrmsr(0x174, 0x60)
        rig.ops.irq_enable_sysexit(rig.cpu)
        assert (rig.cpu.cpl, rig.cpu.rip, rig.cpu.rsp) == (3, 0x40_0000, 0x40_1800)
        assert rig.cpu.interrupts_enabled
