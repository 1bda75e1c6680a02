"""Instructions done by Python are those of the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvops_core.machine import GuestFault, MachineKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine import Vcpu
    from tests.machine.conftest import Rig

CODE, DATA, TSS, HANDLERS, STACK = 0x10000, 0x30000, 0x4000, 0x8000, 0x20000
RESERVED = 0xFFC08028


@pytest.fixture(scope="module")
def flag_rigs(rigs: Callable[..., Rig]) -> dict[MachineKind, Rig]:
    return {kind: rigs(kind) for kind in MachineKind}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(old=st.integers(0, 2**22 - 1), new=st.integers(0, 2**32 - 1), level=st.sampled_from([0, 3]))
@pytest.mark.parametrize("which", list(MachineKind))
def test_popf_changes_what_the_cpu_changes(
    which: MachineKind, flag_rigs: dict[MachineKind, Rig], old: int, new: int, level: int
) -> None:
    rig = flag_rigs[which]
    cpu = rig.cpu
    old &= ~(0x20100 | 0x10000)  # not in virtual-8086 mode, no single step, no RF
    new &= ~0x100
    rig.gate(0x80, HANDLERS, dpl=3)
    rig.code("f4", HANDLERS)
    rig.code("9d cd80")
    cpu.set_segments(level, *((0x08, 0x10) if level == 0 else (0x20, 0x18)))
    cpu.wake()
    cpu.rip, cpu.rsp, cpu.rflags = CODE, STACK - 8, old
    start = cpu.save_registers()
    cpu.virtual.set_number(STACK - 8, rig.size, new)
    assert rig.run() == "poweroff"
    by_cpu = rig.frame(count=3)[2]
    cpu.load_registers(start)
    cpu.insn.popf(new)
    assert cpu.rflags == by_cpu
    assert cpu.insn.pushf() == by_cpu & ~0x30000


PRIVILEGED: list[tuple[str, tuple[int, ...]]] = [
    ("cli", ()), ("sti", ()), ("hlt", ()), ("clts", ()), ("wbinvd", ()), ("invlpg", (0x1000,)), ("mov_from_cr", (3,)),
    ("mov_to_cr", (0, 1)), ("mov_from_dr", (7,)), ("mov_to_dr", (0, 5)), ("rdmsr", (0x10,)), ("wrmsr", (0x10, 1)),
    ("rdpmc", (0,)), ("lgdt", (0, 7)), ("lidt", (0, 7)), ("lldt", (0,)), ("ltr", (0x38,)), ("in_", (0x60, 1)),
    ("out", (0x60, 5, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "operands"), PRIVILEGED)
def test_level_3_must_ask_the_platform(rig: Rig, name: str, operands: tuple[int, ...]) -> None:
    cpu = rig.cpu
    cpu.set_segments(3, 0x20, 0x18)
    with pytest.raises(GuestFault) as caught:
        getattr(cpu.insn, name)(*operands)
    assert (caught.value.vector, caught.value.error_code) == (13, 0)
    asked: list[object] = []

    def privileged(vcpu: Vcpu, what: str, *values: int) -> int:
        asked.append((vcpu, what, values))
        return 9

    rig.platform.privileged = privileged  # type: ignore[method-assign]
    assert getattr(cpu.insn, name)(*operands) in {None, 9}
    assert asked == [(cpu, name, operands)]


def test_iopl_opens_cli_and_ports_but_nothing_else(rig: Rig) -> None:
    cpu = rig.cpu
    cpu.set_segments(3, 0x20, 0x18)
    cpu.rflags |= 3 << 12 | 0x200
    cpu.insn.cli()
    assert not cpu.interrupts_enabled
    cpu.insn.sti()
    assert cpu.interrupts_enabled
    assert cpu.insn.in_(0x60, 2) == 0xFFFF
    with pytest.raises(GuestFault):
        cpu.insn.mov_from_cr(0)


def test_the_bitmap_of_the_task_opens_single_ports(rig: Rig) -> None:
    rig.memory.write(TSS + 0x68, b"\xff" * 0x20)
    rig.memory.set_u8(TSS + 0x68 + 0x60 // 8, 0xFC)
    table = rig.cpu.table("tr")
    rig.cpu.set_table("tr", table.base, 0x68 + 0x20, table.selector, table.flags)
    rig.cpu.set_segments(3, 0x20, 0x18)
    assert [rig.cpu.insn.io_allowed(port, size) for port, size in ((0x60, 1), (0x60, 2), (0x61, 2), (0x200, 1))] == [
        True,
        True,
        False,
        False,
    ]


def test_a_forbidden_port_faults_with_the_registers_of_then(rig: Rig) -> None:
    """What follows in the block has run before the engine could stop; the guest sees nothing of it but stores."""
    rig.gate(13, HANDLERS)
    rig.code("f4", HANDLERS)
    rig.code("b811111111 e460 b822222222 cd80", 0x18000)
    rig.user(0x18000)
    assert rig.run() == "poweroff"
    assert rig.cpu.get("rax") == 0x11111111
    assert rig.frame(count=2) == [0, 0x18005]
    assert rig.machine.counts["software_interrupts"] == 0


def test_ports_reach_the_platform(rig: Rig) -> None:
    written: list[tuple[int, int, int]] = []
    rig.platform.io_out = lambda _vcpu, port, size, value: written.append((port, size, value))  # type: ignore[method-assign]
    rig.platform.io_in = lambda _vcpu, port, size: port + size  # type: ignore[method-assign]
    rig.code("b844332211 e670 66e771 e772 66ba3412 ed f4")
    assert rig.run() == "poweroff"
    assert written == [(0x70, 1, 0x44), (0x71, 2, 0x3344), (0x72, 4, 0x11223344)]
    assert rig.cpu.get("eax") == 0x1238


def test_loading_cr3_changes_what_the_cpu_sees(rig: Rig) -> None:
    entry = rig.map(0x300000, DATA, 7)
    rig.memory.set_u32(DATA, 1)
    rig.memory.set_u32(DATA + 0x1000, 2)
    rig.cpu.set("rsi", 0x300000)
    for expected, act in (
        (1, None),
        (2, lambda: rig.cpu.insn.mov_to_cr(3, rig.root)),
        (1, lambda: rig.cpu.insn.invlpg(0)),
    ):
        rig.memory.set_u32(entry, (DATA + 0x1000 if expected == 2 else DATA) | 7)
        if act is not None:
            act()
        rig.code("8b06 f4")
        rig.cpu.wake()
        rig.cpu.rip = CODE
        assert rig.run() == "poweroff"
        assert rig.cpu.get("eax") == expected
    assert rig.machine.counts["tlb_flushes"] >= 2


@pytest.mark.parametrize(
    ("register", "value"), [(0, 1 << 31), (0, 1 << 29 | 1), (0, 1 << 32), (4, 1 << 31), (7, 0), (1, 0)]
)
def test_bad_control_registers_are_refused(rig: Rig, register: int, value: int) -> None:
    with pytest.raises(GuestFault) as caught:
        rig.cpu.insn.mov_to_cr(register, value)
    assert caught.value.vector == (6 if register in {1, 7} else 13)


def test_reserved_bits_in_pdptes_are_refused_when_cr3_is_loaded(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.PAE)
    rig.memory.set_u64(rig.root + 24, 0x50000 | 1 | 1 << 5)
    with pytest.raises(GuestFault, match="PDPTE"):
        rig.cpu.insn.mov_to_cr(3, rig.root)


def test_msrs(rig: Rig) -> None:
    insn = rig.cpu.insn
    for number, value in ((0x12345, 0), (0xC0000080, 1 << 3), (0x277, 2), (0x176, 1 << 60)):
        with pytest.raises(GuestFault):
            insn.wrmsr(number, value)
    insn.wrmsr(0x176, 0x1234)
    assert insn.rdmsr(0x176) == 0x1234
    if rig.long:
        with pytest.raises(GuestFault, match=r"LME|reserved"):
            insn.wrmsr(0xC0000080, 0x800)
        insn.wrmsr(0xC0000102, 0xFFFF800000001000)
        rig.cpu.set("gs_base", 0x77)
        insn.swapgs()
        assert (rig.cpu.get("gs_base"), insn.rdmsr(0xC0000102)) == (0xFFFF800000001000, 0x77)
        insn.load_gs(0x1B)
        assert (rig.cpu.get("gs_base"), insn.rdmsr(0xC0000102)) == (0xFFFF800000001000, 0)


def test_task_register_and_ldt(rig: Rig) -> None:
    insn = rig.cpu.insn
    assert insn.str() == 0x38
    with pytest.raises(GuestFault) as caught:
        insn.ltr(0x38)  # busy now
    assert caught.value.error_code == 0x38
    with pytest.raises(GuestFault):
        insn.lldt(0x08)
    insn.lldt(0)
    assert rig.cpu.table("ldtr").limit == 0
    assert insn.sgdt() == (0x1000, 0x47)
    insn.lidt(0x5000, 0x7FF)
    assert insn.sidt() == (0x5000, 0x7FF)


def test_cpuid_is_the_same_by_cpu_and_by_python(rig: Rig) -> None:
    for leaf in (0, 1, 2, 7, 0x80000000, 0x80000001, 0x80000003, 0x80000008, 0xFFFFFFFF):
        rig.code(b"\xb8" + leaf.to_bytes(4, "little") + bytes.fromhex("31c9 0fa2 f4"))
        rig.cpu.wake()
        rig.cpu.rip = CODE
        assert rig.run() == "poweroff"
        assert tuple(rig.cpu.get(name) for name in ("eax", "ebx", "ecx", "edx")) == rig.cpu.insn.cpuid(leaf)


def test_rdrand_is_not_there(rig: Rig) -> None:
    rig.gate(6, HANDLERS)
    rig.code("f4", HANDLERS)
    rig.code("0fc7f0 f4")
    assert rig.run() == "poweroff"
    assert rig.platform.seen == [(6, None, None, CODE)]
