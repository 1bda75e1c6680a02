"""Each op: what it asks of the host and what it leaves in memory."""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from pvops_lguest import backend
from pvops_lguest.host.abi import ABIS, Call
from pvops_lguest.ops import LguestOps

from pvops_core.backends import Environment
from pvops_core.errors import UsageError
from pvops_core.hookspecs import MODULES
from pvops_core.machine import GuestFault
from pvops_core.ops import LAYOUTS

from .ops_rig import OpsHost
from .rig import BASE, DATA, RAM

if TYPE_CHECKING:
    from .conftest import MakeHost

SCRATCH = 0x140000
ON = 0x200


@pytest.fixture
def guest(make_host: MakeHost) -> OpsHost:
    return OpsHost(make_host().init())


def told(guest: OpsHost, act: Callable[[], object]) -> list[tuple[object, ...]]:
    """The hypercalls that an act makes."""
    before = len(guest.calls())
    act()
    return guest.calls()[before:]


def test_every_op_is_a_hook(make_host: MakeHost) -> None:
    ops = OpsHost(make_host()).ops
    hooks = {name for module in MODULES for name in vars(module)}
    mine = {name for name in dir(ops) if hasattr(getattr(ops, name), "pvops_impl")}
    assert mine <= hooks
    replaced = """
        save_fl restore_fl irq_disable irq_enable safe_halt init_IRQ load_gdt load_idt write_gdt_entry write_idt_entry
        load_tls set_ldt load_tr_desc cpuid clts read_cr0 write_cr0 read_cr2 read_cr3 write_cr3 read_cr4 write_cr4
        set_debugreg load_esp0 iret wbinvd flush_tlb_user flush_tlb_single flush_tlb_kernel set_pte set_pte_at set_pmd
        time_init get_wallclock sched_clock get_cpu_khz apic_write apic_write_atomic apic_read memory_setup patch
        set_lazy_mode mmu_lazy_mode_enter mmu_lazy_mode_leave cpu_lazy_mode_enter cpu_lazy_mode_leave
        kernel_rpl paravirt_enabled name
    """
    assert set(replaced.split()) <= mine


def test_other_platforms_are_refused(make_host: MakeHost) -> None:
    host = make_host()
    environment = Environment(
        machine=host.machine,
        layout=LAYOUTS["2.6.24"],
        platform=SimpleNamespace(),  # type: ignore[arg-type]  # on purpose
        symbols={},
        switch=SimpleNamespace(),  # type: ignore[arg-type]  # never called
    )
    with pytest.raises(UsageError, match="lguest host"):
        LguestOps(environment)


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


def test_the_first_hypercall_of_the_ops_is_init(make_host: MakeHost) -> None:
    guest = OpsHost(make_host())
    guest.ops.irq_enable(guest.vcpu)
    assert guest.calls() == []
    guest.ops.write_cr3(guest.vcpu, guest.host.gpgdir)
    assert guest.calls() == [("LGUEST_INIT", DATA, 0, 0), ("NEW_PGTABLE", guest.host.gpgdir, 0, 0)]


def test_an_op_says_which_symbol_is_missing(guest: OpsHost) -> None:
    with pytest.raises(UsageError, match="no_such_symbol"):
        guest.ops.symbol("no_such_symbol")


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


def test_page_tables(guest: OpsHost) -> None:
    ops, cpu, host = guest.ops, guest.vcpu, guest.host
    assert told(guest, lambda: ops.set_pte(cpu, BASE + SCRATCH, 0x1063)) == []
    ops.write_cr3(cpu, host.gpgdir)
    assert told(guest, lambda: ops.set_pte(cpu, BASE + SCRATCH, 0x2063)) == [("FLUSH_TLB", 1, 0, 0)]
    assert host.get(SCRATCH) == 0x2063
    host.set(SCRATCH + 0x104, BASE + 0x8000)
    calls = told(guest, lambda: ops.set_pte_at(cpu, BASE + SCRATCH + 0x100, 0x08048000, BASE + SCRATCH + 4, 0x3067))
    assert calls == [("SET_PTE", 0x8000, 0x08048000, 0x3067)]
    assert host.get(SCRATCH + 4) == 0x3067
    calls = told(guest, lambda: ops.set_pmd(cpu, BASE + SCRATCH + 0x80, 0xA067))
    assert calls == [("SET_PMD", SCRATCH, 0x20, 0)]
    assert host.get(SCRATCH + 0x80) == 0xA067
    assert told(guest, lambda: ops.flush_tlb_user(cpu)) == [("FLUSH_TLB", 0, 0, 0)]
    assert told(guest, lambda: ops.flush_tlb_kernel(cpu)) == [("FLUSH_TLB", 1, 0, 0)]
    assert told(guest, lambda: ops.flush_tlb_single(cpu, 0x1000)) == [("SET_PTE", host.gpgdir, 0x1000, 0)]


def test_lazy_mode_of_2_6_23(make_host: MakeHost) -> None:
    guest = OpsHost(make_host("2.6.23").init())
    ops, cpu = guest.ops, guest.vcpu
    ops.write_cr3(cpu, guest.host.gpgdir)
    assert told(guest, lambda: ops.set_lazy_mode(cpu, 3)) == []
    assert told(guest, lambda: (ops.set_lazy_mode(cpu, 1), ops.flush_tlb_user(cpu), ops.clts(cpu))) == []
    queued = [("FLUSH_TLB", 0, 0, 0), ("TS", 0, 0, 0), ("FLUSH_ASYNC", 0, 0, 0)]
    assert told(guest, lambda: ops.set_lazy_mode(cpu, 3)) == queued
    assert told(guest, lambda: ops.flush_tlb_user(cpu)) == []
    assert told(guest, lambda: ops.set_lazy_mode(cpu, 0)) == [queued[0], queued[2]]
    assert told(guest, lambda: ops.flush_tlb_user(cpu)) == [queued[0]]


@pytest.mark.parametrize("kind", ["mmu", "cpu"])
def test_lazy_modes_of_2_6_24(guest: OpsHost, kind: str) -> None:
    enter, leave = (getattr(guest.ops, f"{kind}_lazy_mode_{which}") for which in ("enter", "leave"))
    assert told(guest, lambda: (enter(guest.vcpu), guest.ops.clts(guest.vcpu))) == []
    assert told(guest, lambda: leave(guest.vcpu)) == [("TS", 0, 0, 0), ("FLUSH_ASYNC", 0, 0, 0)]
    assert told(guest, lambda: guest.ops.clts(guest.vcpu)) == [("TS", 0, 0, 0)]


def test_calls_that_may_not_wait_do_not(guest: OpsHost) -> None:
    """A direct call in lazy mode has the queued ones done before it."""
    ops, cpu = guest.ops, guest.vcpu
    ops.mmu_lazy_mode_enter(cpu)
    ops.clts(cpu)
    assert told(guest, lambda: ops.safe_halt(cpu)) == [("TS", 0, 0, 0), ("HALT", 0, 0, 0)]


def test_time(make_host: MakeHost) -> None:
    guest = OpsHost(make_host(rtc="86400").init())
    ops, cpu, host = guest.ops, guest.vcpu, guest.host
    assert ops.get_wallclock(cpu) == 86400
    assert ops.get_cpu_khz(cpu) == 1_000_000
    before = ops.sched_clock(cpu)
    host.machine.clock.advance(12345)
    assert ops.sched_clock(cpu) == before + 12345
    host.set(host.member("tsc_khz"), 0)
    assert ops.sched_clock(cpu) == 86400 * 10**9 + host.get(host.member("time") + 4)


def test_there_is_no_apic(guest: OpsHost) -> None:
    assert (
        told(
            guest, lambda: (guest.ops.apic_write(guest.vcpu, 0x20, 1), guest.ops.apic_write_atomic(guest.vcpu, 0x20, 1))
        )
        == []
    )
    assert guest.ops.apic_read(guest.vcpu, 0x20) == 0


def test_memory_map(guest: OpsHost) -> None:
    assert guest.ops.memory_setup(guest.vcpu) == 0
    assert struct.unpack("<IQQI", guest.host.machine.memory.read(0x145000, 24)) == (1, 0, RAM, 1)


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


def test_pointers_into_what_the_shadow_lacks_are_filled_in(guest: OpsHost) -> None:
    """The op is served at once; the guest sees a fault only where its own tables forbid the access."""
    guest.host.call(Call.FLUSH_TLB, 1)
    assert guest.ops.u32(guest.vcpu, BASE + DATA + guest.host.state.abi.data.reserve_mem) == 4 << 20
    with pytest.raises(GuestFault) as fault:
        guest.ops.set_pte(guest.vcpu, 0x1000, 1)
    assert (fault.value.vector, fault.value.address) == (14, 0x1000)


def test_after_a_kill_nothing_more_is_done(guest: OpsHost) -> None:
    guest.host.machine.memory.write(SCRATCH, struct.pack("<4I", 0, 0x8500, 0x610008, 0xC0008E00))
    guest.host.machine.memory.write(SCRATCH + 0x800, struct.pack("<HI", 15, BASE + SCRATCH))
    calls = told(guest, lambda: guest.ops.load_idt(guest.vcpu, BASE + SCRATCH + 0x800))
    assert calls == [("LOAD_IDT_ENTRY", 0, 0, 0x8500)]
    assert guest.host.state.traps.gate(1) is None
    assert guest.host.ends() == ("crash", "bad IDT type 5")


def test_the_backend_says_what_it_is() -> None:
    assert backend.name == "lguest"
    assert backend.base == "native"
    assert [kind.value for kind in backend.kinds] == ["i386"]
