"""Interrupt ops: the flag is a word in memory; halting; the way back from a trap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from plugins.lguest.tests.rig import BASE
from pvops_core.machine import GuestFault

if TYPE_CHECKING:
    from plugins.lguest.tests.ops_rig import OpsHost

from plugins.lguest.tests.ops_fixtures import told

ON = 0x200


def test_the_interrupt_flag_is_a_word_in_memory(guest: OpsHost) -> None:
    word = guest.host.member("irq_enabled")
    assert not told(guest, lambda: guest.ops.irq_enable(guest.vcpu))
    assert guest.host.get(word) == ON
    assert guest.ops.save_fl(guest.vcpu) == ON
    guest.ops.irq_disable(guest.vcpu)
    assert guest.host.get(word) == 0
    assert guest.ops.save_fl(guest.vcpu) == 0
    guest.ops.restore_fl(guest.vcpu, ON)
    assert guest.host.get(word) == ON


def test_safe_halt_halts(guest: OpsHost) -> None:
    assert told(guest, lambda: guest.ops.safe_halt(guest.vcpu)) == [("HALT", 0, 0, 0)]
    assert guest.vcpu.halted


def test_init_irq_and_time_init_unmask(guest: OpsHost) -> None:
    blocked = guest.host.member("blocked_interrupts")
    guest.host.set(blocked, 0xFFFFFFFF)
    guest.ops.init_IRQ(guest.vcpu)
    assert guest.host.get(blocked) == 1
    guest.ops.time_init(guest.vcpu)
    assert guest.host.get(blocked) == 0


def test_iret_takes_the_interrupt_flag_from_the_frame(guest: OpsHost) -> None:
    host, cpu = guest.host, guest.vcpu
    for flags, enabled in ((0x202, ON), (0x46, 0)):
        cpu.set("esp", BASE + 0x11F000)
        for at, word in enumerate((BASE + 0x101000, 0x61, flags)):
            host.set(0x11F000 + 4 * at, word)
        guest.ops.iret(cpu)
        assert cpu.rip == BASE + 0x101000
        assert cpu.get("esp") == BASE + 0x11F00C
        assert host.get(host.member("irq_enabled")) == enabled
        assert cpu.rflags & ON


def test_iret_to_user_mode(guest: OpsHost) -> None:
    host, cpu = guest.host, guest.vcpu
    host.segments()
    cpu.set("esp", BASE + 0x11F000)
    for at, word in enumerate((0x08048000, 0x73, 0x202, 0x0804A000, 0x7B)):
        host.set(0x11F000 + 4 * at, word)
    guest.ops.iret(cpu)
    assert (cpu.cpl, cpu.rip, cpu.get("esp")) == (3, 0x08048000, 0x0804A000)


def test_a_bad_iret_changes_nothing(guest: OpsHost) -> None:
    host, cpu = guest.host, guest.vcpu
    host.set(host.member("irq_enabled"), ON)
    cpu.set("esp", BASE + 0x11F000)
    for at, word in enumerate((BASE, 0x60, 0x2)):
        host.set(0x11F000 + 4 * at, word)
    with pytest.raises(GuestFault):
        guest.ops.iret(cpu)
    assert host.get(host.member("irq_enabled")) == ON
