"""Exceptions and interrupts arrive in the guest as hardware delivers them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.machine import MachineKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.machine.conftest import Rig

GDT, CODE, USER_CODE, HANDLERS, DATA = 0x1000, 0x10000, 0x18000, 0x8000, 0x30000
STACK, RING0_STACK, IST_STACK, USER_STACK = 0x20000, 0x22000, 0x24000, 0x26000
RF = 1 << 16
WRITE_ABSENT = {32: "c6050000300055", 64: "c604250000300055"}


def absent(rig: Rig) -> str:
    """mov byte [0x300000], 0x55: not mapped unless a test maps it."""
    return WRITE_ABSENT[rig.kind.bits]


def test_page_fault_at_level_0_keeps_the_stack(rig: Rig) -> None:
    rig.gate(14, HANDLERS)
    rig.code("f4", HANDLERS)
    rig.code(absent(rig))
    assert rig.run() == "poweroff"
    assert rig.platform.seen == [(14, 2, 0x300000, CODE)]
    assert rig.cpu.cr2 == 0x300000
    frame = [2, CODE, 0x08, 2 | RF]
    if rig.long:
        frame += [STACK, 0x10]
    assert rig.frame(count=len(frame)) == frame
    assert rig.cpu.rsp == STACK - len(frame) * rig.size


def test_page_fault_from_level_3_takes_the_stack_of_the_tss(rig: Rig) -> None:
    rig.gate(14, HANDLERS)
    rig.code("f4", HANDLERS)
    rig.code(absent(rig), USER_CODE)
    rig.user()
    assert rig.run() == "poweroff"
    assert rig.platform.seen == [(14, 6, 0x300000, USER_CODE)]
    assert rig.frame(count=6) == [6, USER_CODE, 0x23, 2 | RF, USER_STACK, 0x1B]
    assert rig.cpu.rsp == RING0_STACK - 6 * rig.size
    assert rig.cpu.cpl == 0
    assert rig.cpu.get("ss") == (0 if rig.long else 0x10)


def test_many_faults_in_a_row_never_become_a_double_fault(rig: Rig) -> None:
    rig.code(absent(rig) * 5 + "f4")
    rig.platform.on_exception = lambda vcpu, _: (setattr(vcpu, "rip", vcpu.rip + len(absent(rig)) // 2), True)[1]
    assert rig.run() == "poweroff"
    assert [seen[0] for seen in rig.platform.seen] == [14] * 5


def test_handler_returns_to_the_instruction(rig: Rig) -> None:
    """The guest's own handler maps the page (present bit) and returns; the store is done then."""
    entry = rig.map(0x300000, DATA, 6)
    rig.gate(14, HANDLERS)
    skip = "4883c408" if rig.long else "83c404"
    store = ("830c25" if rig.long else "830d") + entry.to_bytes(4, "little").hex() + "01"
    rig.code(store + skip + ("48cf" if rig.long else "cf"), HANDLERS)
    rig.code(absent(rig) + "cd80", USER_CODE)
    rig.gate(0x80, HANDLERS + 0x100, dpl=3)
    rig.code("f4", HANDLERS + 0x100)
    rig.user()
    assert rig.run() == "poweroff"
    assert rig.memory.u8(DATA) == 0x55
    assert rig.machine.counts["exceptions"] == 1
    assert rig.machine.counts["software_interrupts"] == 1


def test_interrupt_gate_of_too_low_a_level_is_general_protection(rig: Rig) -> None:
    rig.gate(0x80, HANDLERS)
    rig.gate(13, HANDLERS + 0x100)
    rig.code("f4", HANDLERS + 0x100)
    rig.code("cd80", USER_CODE)
    rig.user()
    assert rig.run() == "poweroff"
    assert rig.frame(count=3) == [0x80 * 8 + 2, USER_CODE, 0x23]


@pytest.mark.parametrize(("code", "vector", "error"), [
    ("fa", 13, 0), ("f4", 13, 0), ("0f20d8", 13, 0), ("0f30", 13, 0), ("e464", 13, 0), ("e664", 13, 0),
    ("0f0b", 6, None), ("0f34", 13, 0), ("66b8f0008ed8", 13, 0xF0), ("31c9f7f1", 0, None), ("66b808008ed0", 13, 8),
])  # fmt: skip
def test_what_level_3_may_not_do(rig: Rig, code: str, vector: int, error: int | None) -> None:
    rig.gate(vector, HANDLERS)
    rig.code("f4", HANDLERS)
    rig.code(code + "ebfe", USER_CODE)
    rig.user()
    assert rig.run() == "poweroff"
    assert rig.platform.seen[0][:2] == (vector, error)


def test_ring_1_is_entered_and_left(make_rig: Callable[..., Rig]) -> None:
    for kind in (MachineKind.I386, MachineKind.PAE):
        rig = make_rig(kind)
        rig.gate(0x80, HANDLERS, dpl=1)
        rig.gate(0x81, HANDLERS + 0x100, dpl=3, cs=0x28)
        rig.code("f4", HANDLERS)
        rig.code("cd80", HANDLERS + 0x100)
        rig.code("cd81", USER_CODE)
        rig.user()
        assert rig.run() == "poweroff"
        assert rig.cpu.cpl == 0
        assert rig.frame(count=5) == [HANDLERS + 0x102, 0x29, 0x2, 0x28000 - 20, 0x31]


def test_ist_stack(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.X86_64)
    rig.gate(14, HANDLERS, ist=1)
    rig.code("f4", HANDLERS)
    rig.code(absent(rig))
    rig.cpu.rsp = STACK - 3
    assert rig.run() == "poweroff"
    assert rig.cpu.rsp == IST_STACK - 48
    assert rig.frame(count=5)[4] == STACK - 3


@pytest.mark.parametrize(("kind_of_gate", "enabled"), [(0xE, False), (0xF, True)])
def test_interrupt_gates_clear_if_and_trap_gates_do_not(rig: Rig, kind_of_gate: int, *, enabled: bool) -> None:
    rig.gate(0x80, HANDLERS, kind=kind_of_gate)
    rig.code("f4", HANDLERS)
    rig.code("fbcd80")
    assert rig.run() == "poweroff"
    assert rig.cpu.interrupts_enabled is enabled


def test_absent_gate_handler_becomes_a_double_fault(rig: Rig) -> None:
    rig.gate(14, HANDLERS, present=0)
    rig.gate(8, HANDLERS + 0x100)
    rig.code("f4", HANDLERS + 0x100)
    rig.code(absent(rig))
    assert rig.run() == "poweroff"
    assert rig.frame(count=2) == [0, CODE]


def test_absent_stack_ends_as_a_triple_fault(rig: Rig) -> None:
    rig.gate(14, HANDLERS)
    rig.gate(8, HANDLERS)
    rig.code(absent(rig))
    rig.cpu.rsp = 0x340000
    stop = rig.machine.run(max_ns=1_000_000)
    assert stop.reason == "crash"
    assert "triple fault" in stop.detail


def test_gate_not_present_names_the_vector(rig: Rig) -> None:
    rig.gate(0x80, HANDLERS, present=0)
    rig.gate(11, HANDLERS)
    rig.code("f4", HANDLERS)
    rig.code("cd80")
    assert rig.run() == "poweroff"
    assert rig.frame(count=1) == [0x80 * 8 + 2]


def test_interrupts_wait_for_if_and_the_sti_shadow(rig: Rig) -> None:
    rig.gate(0x20, HANDLERS)
    rig.code("fa f4", HANDLERS)
    rig.cpu.raise_irq(0x20)
    end = rig.code("90" * 3 + "fb" + "f4" + "ebfe")
    rig.platform.halted = lambda vcpu: vcpu.halt() if vcpu.interrupts_enabled else rig.machine.stop("poweroff")
    assert rig.run() == "poweroff"
    assert rig.frame(count=1) == [end - 2]
    assert rig.cpu.pending == []


def test_iret_by_python_is_the_iret_of_the_cpu(rig: Rig) -> None:
    rig.iret_to(USER_CODE, 0x23, USER_STACK, 0x1B, flags=0x202)
    start = rig.cpu.save_registers()
    rig.gate(0x80, HANDLERS, dpl=3)
    rig.code("f4", HANDLERS)
    rig.code("cd80", USER_CODE)
    assert rig.run() == "poweroff"
    by_cpu = rig.frame(count=5)
    rig.cpu.load_registers(start)
    rig.cpu.wake()
    rig.cpu.iret()
    assert (rig.cpu.cpl, rig.cpu.rip, rig.cpu.rsp, rig.cpu.rflags) == (3, USER_CODE, USER_STACK, 0x202)
    assert rig.run() == "poweroff"
    assert rig.frame(count=5) == by_cpu


def test_syscall_and_sysret(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.X86_64)
    insn = rig.cpu.insn
    insn.wrmsr(0xC0000081, 0x0013000800000000)
    insn.wrmsr(0xC0000082, HANDLERS)
    insn.wrmsr(0xC0000084, 0x200)
    rig.code("4889c8 4c89da 480f07", HANDLERS)
    rig.code("480f05 cd80", USER_CODE)
    rig.gate(0x80, HANDLERS + 0x100, dpl=3)
    rig.code("f4", HANDLERS + 0x100)
    rig.iret_to(USER_CODE, 0x23, USER_STACK, 0x1B, flags=0x202)
    assert rig.run() == "poweroff"
    assert rig.cpu.get("rax") == USER_CODE + 3
    assert rig.cpu.get("rdx") == 0x202
    assert rig.frame(count=2) == [USER_CODE + 5, 0x23]


def test_no_execute(make_rig: Callable[..., Rig]) -> None:
    for kind in (MachineKind.PAE, MachineKind.X86_64):
        rig = make_rig(kind)
        rig.map(0x300000, DATA, 7 | 1 << 63)
        rig.gate(14, HANDLERS)
        rig.code("f4", HANDLERS)
        rig.code("b800003000ffe0")
        assert rig.run() == "poweroff"
        assert rig.platform.seen == [(14, 0x11, 0x300000, 0x300000)]


@pytest.mark.parametrize("protect", [False, True])
def test_write_protection_of_the_kernel(rig: Rig, *, protect: bool) -> None:
    rig.map(0x300000, DATA, 1)
    rig.cpu.cr0 = rig.cpu.cr0 & ~0x10000 | (0x10000 if protect else 0)
    rig.gate(14, HANDLERS)
    rig.code("f4", HANDLERS)
    rig.code(absent(rig) + "f4")
    assert rig.run() == "poweroff"
    assert [seen[:3] for seen in rig.platform.seen] == ([(14, 3, 0x300000)] if protect else [])
    assert rig.memory.u8(DATA) == (0 if protect else 0x55)


@pytest.mark.parametrize("code", ["0f34", "0f05", "e464", "e664", "6e", "cd80", "0fa2"])
def test_rip_is_known_after_a_handler_has_moved_it(rig: Rig, code: str) -> None:
    """The engine loses RIP inside a block once a callback has written it, unless it is started again."""
    seen: list[int] = []
    platform = rig.platform
    note = lambda vcpu, *_: seen.append(vcpu.rip)  # noqa: E731 - one for five methods
    platform.syscall = platform.sysenter = platform.io_out = platform.software_interrupt = note
    platform.io_in = lambda vcpu, *_: seen.append(vcpu.rip) or 0  # type: ignore[func-returns-value, method-assign]
    platform.cpuid = lambda vcpu, *_: (seen.append(vcpu.rip) or 0, 0, 0, 0)  # type: ignore[func-returns-value, method-assign]
    platform.on_exception = lambda vcpu, _: (setattr(vcpu, "rip", vcpu.rip + 2), True)[1]
    end = rig.code("0f0b 9090" + code + "90 f4")
    rig.cpu.set("rsi", DATA)
    assert rig.run() == "poweroff"
    after = code in {"0f34", "0f05", "cd80"}
    assert seen == [end - 2 if after else end - 2 - len(code) // 2]
    assert rig.cpu.rip == end


@pytest.mark.parametrize("level", [0, 3])
@pytest.mark.parametrize(("code", "vector", "error"), [("0f33", 13, 0), ("660f33", 13, 0), ("0f01d1", 6, None)])
def test_instructions_that_no_guest_has(rig: Rig, code: str, vector: int, error: int | None, level: int) -> None:
    """Rdpmc without counters is #GP(0), xsetbv without XSAVE #UD at every level. Source: Intel SDM volume 2."""
    rig.platform.on_exception = lambda *_: rig.machine.stop("seen") or True  # type: ignore[func-returns-value]
    at = USER_CODE if level else CODE
    rig.code(code, at)
    if level:
        rig.user(at)
    assert rig.run() == "seen"
    assert rig.platform.seen == [(vector, error, None, at)]
