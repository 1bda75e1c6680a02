"""Control registers and cpuid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plugins.lguest.tests.rig import BASE

if TYPE_CHECKING:
    from plugins.lguest.tests.ops_rig import OpsHost

from plugins.lguest.tests.ops_fixtures import SCRATCH, told


def test_control_registers(guest: OpsHost) -> None:
    ops, cpu = guest.ops, guest.vcpu
    assert told(guest, lambda: ops.write_cr0(cpu, 0x8005003B)) == [("TS", 8, 0, 0)]
    assert ops.read_cr0(cpu) == 0x8005003B
    assert told(guest, lambda: ops.clts(cpu)) == [("TS", 0, 0, 0)]
    assert ops.read_cr0(cpu) == 0x80050033
    assert told(guest, lambda: (ops.write_cr4(cpu, 0x10), ops.wbinvd(cpu), ops.set_debugreg(cpu, 7, 1))) == []
    assert (ops.read_cr4(cpu), ops.read_cr4_safe(cpu)) == (0, 0)
    guest.host.set(guest.host.member("cr2"), 0xDEAD0000)
    assert ops.read_cr2(cpu) == 0xDEAD0000
    assert ops.read_cr3(cpu) == 0
    ops.write_cr3(cpu, guest.host.gpgdir)
    assert ops.read_cr3(cpu) == guest.host.gpgdir


def test_cpuid_hides_features(guest: OpsHost) -> None:
    cpu = guest.vcpu
    places = [BASE + SCRATCH + 4 * n for n in range(4)]

    def cpuid(leaf: int) -> tuple[int, ...]:
        guest.host.set(SCRATCH, leaf)
        guest.host.set(SCRATCH + 8, 0)
        guest.ops.cpuid(cpu, *places)
        return tuple(guest.host.get(SCRATCH + 4 * n) for n in range(4))

    real = cpu.insn.cpuid(1)
    assert cpuid(1) == (real[0], real[1], real[2] & 0x2201, real[3] & 0x07808101 | 0x2000)
    assert cpuid(0) == cpu.insn.cpuid(0)
    assert cpuid(0x80000000)[0] <= 0x80000008
