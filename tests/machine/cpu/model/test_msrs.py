"""rdmsr and wrmsr of the guest's own do at level 0 what the table says, and what Python does for a guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.machine import GuestFault, MachineKind, ServedMsr, general_protection
from pvops_core.machine.cpu.model.msrs import APIC_BOOT_PROCESSOR, APIC_DEFAULT_BASE, MSR_APIC_BASE, RULES
from pvops_core.testing.assembly import assemble
from tests.machine.conftest import CODE, HANDLERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine import Vcpu
    from tests.machine.conftest import Rig

UNKNOWN = (0x1, 0xCE, 0x48, 0x10A, 0x1FFF, 0x2000, 0x40000000, 0xC0000104, 0xC0011029, 0xFFFFFFFF)
VALUES = (0, 1, 0x900, 0xFEE00900, 0x123456789, 1 << 47, 0xFFFF800000000000, 0x0007040600070406, 0x1B1, (1 << 64) - 1)


def access(rig: Rig, number: int, value: int | None = None) -> int | None:
    """One rdmsr, or wrmsr, of the guest; what was read, or None for #GP(0) at the instruction."""
    cpu, wrote = rig.cpu, value is not None
    at = CODE + 2
    rig.code("ffc3 " + ("0f30" if wrote else "0f32") + "f4")
    rig.gate(13, HANDLERS)
    rig.code("f4", HANDLERS)
    rig.platform.seen.clear()
    cpu.wake()
    cpu.rip = CODE
    for name, word in (("rbx", 0), ("rcx", number), ("rax", (value or 0) & 0xFFFFFFFF), ("rdx", (value or 0) >> 32)):
        cpu.set(name, word)
    before = cpu.rsp
    assert rig.run() == "poweroff"
    assert cpu.get("rbx") == 1
    cpu.rsp = before
    if rig.platform.seen:
        assert rig.platform.seen == [(13, 0, None, at)]
        assert cpu.get("eax") == (value or 0) & 0xFFFFFFFF
        return None
    assert cpu.rip == at + 3
    return cpu.get("rdx") << 32 | cpu.get("rax")


def by_python(action: Callable[[], int | None]) -> int | None:
    try:
        return action() or 0
    except GuestFault as fault:
        return None if (fault.vector, fault.error_code) == (13, 0) else -1


@pytest.mark.parametrize("number", [*RULES, *UNKNOWN], ids=hex)
def test_guest_and_python_agree(rig: Rig, number: int) -> None:
    known = by_python(lambda: rig.cpu.insn.rdmsr(number))
    assert access(rig, number) == known
    if number == 0xC0000080:
        return
    for value in VALUES:
        written = by_python(lambda value=value: rig.cpu.insn.wrmsr(number, value))  # type: ignore[misc]
        now = by_python(lambda: rig.cpu.insn.rdmsr(number))
        assert (access(rig, number, value) is None) == (written is None)
        assert access(rig, number) == now


def test_the_unknown_fault_and_are_counted_too(rig: Rig) -> None:
    for number in UNKNOWN:
        assert access(rig, number) is None
        assert access(rig, number, 5) is None
    assert rig.machine.counts["msr_reads"] == rig.machine.counts["msr_writes"] == len(UNKNOWN)


def test_efer_cannot_take_what_is_reserved(rig: Rig) -> None:
    now = access(rig, 0xC0000080)
    assert access(rig, 0xC0000080, 1 << 12) is None
    assert access(rig, 0xC0000080) == now


def test_apic_base_tells_the_boot_processor(make_rig: Callable[..., Rig], kind: MachineKind) -> None:
    rig = make_rig(kind, vcpus=2)
    values = [vcpu.insn.rdmsr(MSR_APIC_BASE) for vcpu in rig.machine.vcpus]
    assert values == [APIC_DEFAULT_BASE | APIC_BOOT_PROCESSOR, APIC_DEFAULT_BASE]


def test_apic_base_belongs_to_snapshots(rig: Rig) -> None:
    before = rig.machine.snapshot()
    access(rig, MSR_APIC_BASE, 0xFEE00900)
    after = rig.machine.snapshot()
    rig.machine.restore(before)
    assert rig.cpu.msr(MSR_APIC_BASE) == APIC_DEFAULT_BASE | APIC_BOOT_PROCESSOR
    rig.machine.restore(after)
    assert rig.cpu.msr(MSR_APIC_BASE) == 0xFEE00900


def test_what_a_platform_serves_comes_first(rig: Rig) -> None:
    written: list[int] = []

    def write(_vcpu: Vcpu, value: int) -> None:
        if value == 5:
            raise general_protection("not five")
        written.append(value)

    for number in (0x4B564D00, 0x48):
        rig.machine.served_msrs[number] = ServedMsr(lambda _vcpu: 0x1122334455667788, write)
        assert access(rig, number) == 0x1122334455667788
        assert access(rig, number, 5) is None
        access(rig, number, 6)
    assert written == [6, 6]


@pytest.mark.parametrize("prefix", ["", "66", "f3", "f2", "66f3"])
def test_prefixes_are_part_of_the_instruction(rig: Rig, prefix: str) -> None:
    rig.code(prefix + "0f32" + "f4")
    rig.cpu.set("rcx", MSR_APIC_BASE)
    assert rig.run() == "poweroff"
    assert rig.cpu.rip == CODE + len(prefix) // 2 + 3
    assert rig.cpu.get("rax") == APIC_DEFAULT_BASE | APIC_BOOT_PROCESSOR


def test_it_takes_no_time_beyond_the_blocks(rig: Rig) -> None:
    times = []
    for code in ("0f32", "8bc0"):
        rig.cpu.wake()
        rig.cpu.rip = CODE
        rig.code("41" * 2 * (not rig.long) + code * 5 + "ffc3 f4")
        rig.cpu.set("rcx", MSR_APIC_BASE - (0 if rig.long else 2))
        before = rig.machine.clock.ns
        assert rig.run() == "poweroff"
        times.append(rig.machine.clock.ns - before)
    assert times[0] == times[1]


def test_after_a_software_interrupt_it_is_still_at_its_place(rig: Rig) -> None:
    rig.gate(0x80, HANDLERS)
    rig.code(assemble("mov ecx, 0x1b; rdmsr; " + ("iretq" if rig.long else "iretd"), rig.kind.bits), HANDLERS)
    rig.code("cd80 ffc3 0f32 ffc3 f4")
    rig.cpu.set("rbx", 0)
    assert rig.run() == "poweroff"
    assert rig.platform.seen == []
    assert rig.cpu.get("rbx") == 2
    assert rig.cpu.rip == CODE + 9
