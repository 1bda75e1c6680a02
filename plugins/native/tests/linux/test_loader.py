"""The state at a kernel's entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_native.linux import loader

from pvops_core.kinds import MachineKind

if TYPE_CHECKING:
    from pvops_native.platform import NativePlatform


def test_the_entry_state_is_the_protocol_s(platform: NativePlatform) -> None:
    vcpu = platform.machine.vcpus[0]
    assert vcpu.rip == 0x1000000
    assert (vcpu.cpl, vcpu.interrupts_enabled) == (0, False)
    assert vcpu.segment("cs")[:2] == (loader.CODE, 0)
    for name in ("ds", "es", "ss"):
        assert vcpu.segment(name)[:2] == (loader.DATA, 0)
    if platform.machine.kind is MachineKind.X86_64:
        assert vcpu.in_64_bit_code
        for address in (0, 0x1000000, 0xFFE00000):
            assert vcpu.walk(address).pa == address
    else:
        assert not vcpu.cr0 >> 31
        assert not vcpu.long_mode
