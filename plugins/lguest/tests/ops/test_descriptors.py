"""Descriptor tables, gates and the kernel stack."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from pvops_lguest.host.abi import ABIS

from plugins.lguest.tests.ops_rig import OpsHost
from plugins.lguest.tests.rig import BASE
from pvops_core.machine import GuestFault

if TYPE_CHECKING:
    from .conftest import MakeHost
from plugins.lguest.tests.ops_fixtures import SCRATCH, told


@pytest.mark.parametrize("abi", ABIS)
def test_descriptor_tables(make_host: MakeHost, abi: str) -> None:
    guest = OpsHost(make_host(abi).init())
    ops, cpu, host = guest.ops, guest.vcpu, guest.host
    table = [(n, 0xCF9200) for n in range(32)]
    host.machine.memory.write(SCRATCH, b"".join(struct.pack("<II", *entry) for entry in table))
    host.machine.memory.write(SCRATCH + 0x800, struct.pack("<HI", 255, BASE + SCRATCH))
    ops.load_gdt(cpu, BASE + SCRATCH + 0x800)
    assert host.state.segments.entry(14) == (14, 0xCF9200 | 1 << 13 | 1 << 8)
    assert host.state.segments.entry(16) == (0, 0)
    ops.write_gdt_entry(cpu, BASE + SCRATCH, 15, 0xFFFF, 0xCFF200, 0)
    assert host.state.segments.entry(15) == (0xFFFF, 0xCFF300)
    assert struct.unpack("<II", host.machine.memory.read(SCRATCH + 15 * 8, 8)) == (0xFFFF, 0xCFF200)
    host.machine.memory.write(SCRATCH + 0x900, struct.pack("<6I", 1, 0xF200, 2, 0xF200, 3, 0xF200))
    ops.load_tls(cpu, BASE + SCRATCH + 0x900, 0)
    assert [host.state.segments.entry(n) for n in (6, 7, 8)] == [(n, 0xF300) for n in (1, 2, 3)]


def test_a_short_gdt_is_a_bug_of_the_guest(guest: OpsHost) -> None:
    guest.host.machine.memory.write(SCRATCH, struct.pack("<HI", 15 * 8 - 1, BASE + SCRATCH))
    with pytest.raises(GuestFault) as fault:
        guest.ops.load_gdt(guest.vcpu, BASE + SCRATCH)
    assert fault.value.vector == 6


def test_gates(guest: OpsHost) -> None:
    ops, cpu, host = guest.ops, guest.vcpu, guest.host
    host.machine.memory.write(SCRATCH, struct.pack("<4I", 0x610004, 0xC0008E00, 0x610008, 0xC000EF00))
    host.machine.memory.write(SCRATCH + 0x800, struct.pack("<HI", 15, BASE + SCRATCH))
    calls = told(guest, lambda: ops.load_idt(cpu, BASE + SCRATCH + 0x800))
    assert calls == [("LOAD_IDT_ENTRY", 0, 0x610004, 0xC0008E00), ("LOAD_IDT_ENTRY", 1, 0x610008, 0xC000EF00)]
    calls = told(guest, lambda: ops.write_idt_entry(cpu, BASE + SCRATCH, 1, 0x61000C, 0xC0008E00, 0))
    assert calls == [("LOAD_IDT_ENTRY", 1, 0x61000C, 0xC0008E00)]
    assert host.get(SCRATCH + 8) == 0x61000C
    host.machine.memory.write(SCRATCH + 0x100, struct.pack("<2I", 0x610010, 0xC0008E00))
    calls = told(guest, lambda: ops.write_idt_entry(cpu, BASE + SCRATCH, 0, 0, 0, BASE + SCRATCH + 0x100))
    assert calls == [("LOAD_IDT_ENTRY", 0, 0x610010, 0xC0008E00)]


def test_the_kernel_stack(guest: OpsHost) -> None:
    guest.host.set(SCRATCH + 24, BASE + 0x120000)
    calls = told(guest, lambda: guest.ops.load_esp0(guest.vcpu, 0, BASE + SCRATCH))
    assert calls == [("SET_STACK", 0x69, BASE + 0x120000, 2)]
    assert guest.host.state.shadow.pinned == (BASE + 0x11FFFF, BASE + 0x11EFFF)
    nothing = told(guest, lambda: (guest.ops.set_ldt(guest.vcpu, 0, 0), guest.ops.load_tr_desc(guest.vcpu)))
    assert nothing == []
