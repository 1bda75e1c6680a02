"""Breakpoints by DR0 to DR7: what they wait for, where they trap, and what DR6 says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvops_core.machine import GuestFault, MachineKind
from pvops_core.machine.cpu.debugregs import DR6_BD, DR6_BS
from pvops_core.testing.assembly import assemble
from pvops_core.x86 import DR6_RESET
from tests.machine.conftest import CODE, DATA, HANDLERS, STACK, USER_CODE, P, Rig, U, W

if TYPE_CHECKING:
    from collections.abc import Callable

EXECUTE, WRITE, PORT, ACCESS = range(4)
TF, RF = 1 << 8, 1 << 16
LENGTH_BITS = {1: 0, 2: 1, 4: 3, 8: 2}
DE = 8


def dr7(number: int, kind: int, length: int = 1, *, enable: int = 2) -> int:
    return enable << 2 * number | (kind | LENGTH_BITS[length] << 2) << 16 + 4 * number


def arm(rig: Rig, number: int, address: int, kind: int, length: int = 1) -> None:
    rig.cpu.insn.mov_to_dr(number, address)
    rig.cpu.insn.mov_to_dr(7, rig.cpu.debug.read(7) | dr7(number, kind, length))


def place(rig: Rig, code: str, at: int = CODE) -> list[int]:
    """Put instructions somewhere; gives the address of each, and of what follows (hlt)."""
    places, end = [at], at
    for part in code.split(";"):
        end = rig.code(assemble(part.strip(), rig.kind.bits, end), end)
        places.append(end)
    rig.code("f4", end)
    rig.gate(1, HANDLERS)
    rig.code("f4", HANDLERS)
    return places


def hit(rig: Rig, rip: int, bits: int) -> None:
    assert rig.run() == "poweroff"
    assert rig.platform.seen == [(1, None, None, rip)]
    assert rig.cpu.debug.read(6) == DR6_RESET | bits


def no_hit(rig: Rig) -> None:
    assert rig.run() == "poweroff"
    assert rig.platform.seen == []
    assert rig.cpu.debug.read(6) == DR6_RESET


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("user", [False, True])
def test_an_instruction_breakpoint_is_a_fault(rig: Rig, number: int, *, user: bool) -> None:
    at = place(rig, "inc ebx; inc ebx; inc ebx", USER_CODE if user else CODE)
    arm(rig, number, at[1], EXECUTE)
    rig.cpu.set("ebx", 0)
    if user:
        rig.user()
    hit(rig, at[1], 1 << number)
    assert rig.cpu.get("ebx") == 1
    assert not rig.frame()[2] & RF


def test_the_guest_arms_by_itself(rig: Rig) -> None:
    register = "rax" if rig.long else "eax"
    arming = f"mov eax, {DATA:#x}; mov dr0, {register}; mov eax, {dr7(0, WRITE, 4):#x}; mov dr7, {register}"
    at = place(rig, f"{arming}; mov [{DATA}], eax; inc ebx")
    hit(rig, at[5], 1)
    assert rig.memory.u32(DATA) == dr7(0, WRITE, 4)


def test_rf_lets_one_instruction_pass(rig: Rig) -> None:
    """A loop comes to its breakpoint again: RF holds for one instruction."""
    rig.code("ffc3 ebfc" if rig.long else "43 ebfd", CODE)
    rig.gate(1, HANDLERS)
    handler = "80 4c24 12 01 48cf" if rig.long else "80 4c24 0a 01 cf"  # or byte [flags + 2], 1: RF; iret
    rig.code(handler, HANDLERS)
    arm(rig, 0, CODE, EXECUTE)
    rig.cpu.set("ebx", 0)
    rig.platform.on_exception = lambda *_: len(rig.platform.seen) == 5 and (rig.machine.stop("five") or True)  # type: ignore[func-returns-value]
    assert rig.run() == "five"
    assert rig.cpu.get("ebx") == 4
    assert {seen[3] for seen in rig.platform.seen} == {CODE}


@pytest.mark.parametrize("length", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", [WRITE, ACCESS], ids=["write", "access"])
def test_a_data_breakpoint_is_a_trap(rig: Rig, mode: int, length: int) -> None:
    for offset in (-4, -3, -1, 0, length - 1, length):
        for write in (False, True):
            rig.platform.seen.clear()
            rig.cpu.wake()
            rig.cpu.insn.mov_to_dr(6, 0)
            rig.cpu.rip, rig.cpu.rsp = CODE, STACK
            access = f"mov [{DATA + 64 + offset:#x}], eax" if write else f"mov eax, [{DATA + 64 + offset:#x}]"
            at = place(rig, f"inc ebx; {access}; inc ebx; inc ebx")
            rig.cpu.insn.mov_to_dr(7, 0)
            arm(rig, 2, DATA + 64, mode, length)
            touches = offset > -4 and offset < length
            if touches and (write or mode == ACCESS):
                hit(rig, at[2], 4)
            else:
                no_hit(rig)


def test_the_address_is_aligned_to_the_length(rig: Rig) -> None:
    at = place(rig, f"mov byte ptr [{DATA + 64:#x}], 1; inc ebx")
    arm(rig, 0, DATA + 67, WRITE, 4)
    hit(rig, at[1], 1)


@pytest.mark.parametrize("code", [
    "push eax", "call eax", "pop dword ptr [{data}]", "inc dword ptr [{data}]", "xchg [{data}], eax",
    "mov [{data}], eax",
])  # fmt: skip
def test_all_of_the_instruction_is_done_before_the_trap(rig: Rig, code: str) -> None:
    stack = "push" in code or "call" in code
    width = rig.size
    if rig.long:
        code = code.replace("push eax", "push rax").replace("call eax", "call rax").replace("pop dword", "pop qword")
    rig.cpu.set("esi", DATA + 64)
    data = "rsi" if rig.long else "esi"
    rig.cpu.set("eax", CODE + 0x20)
    text = code.format(data=data)
    at = place(rig, f"nop; {text}")
    rig.code("f4", CODE + 0x20)
    arm(rig, 3, STACK - width if stack else DATA + 64, WRITE, width)
    after = CODE + 0x20 if "call" in code else at[2]
    hit(rig, after, 8)
    if stack:
        top = rig.frame(count=5 if rig.long else 3)
        pushed = (STACK - width & (-16 if rig.long else -1)) - (40 if rig.long else 12)
        assert rig.cpu.rsp == pushed
        assert top[0] == after


def test_a_repeated_instruction_traps_after_its_iteration(rig: Rig) -> None:
    at = place(rig, "cld; rep stosd; inc ebx")
    arm(rig, 0, DATA + 8, WRITE, 4)
    rig.cpu.set("ecx", 10)
    rig.cpu.set("edi", DATA)
    hit(rig, at[1], 1)
    assert rig.cpu.get("ecx") == 7
    assert rig.cpu.get("edi") == DATA + 12


def test_another_address_of_the_same_memory_is_not_watched(rig: Rig) -> None:
    rig.map(0x700000, DATA, P | W | U)
    place(rig, f"mov [{0x700000 + 64:#x}], eax; mov [{DATA + 0x1000 + 64:#x}], eax; inc ebx")
    arm(rig, 0, DATA + 64, WRITE, 4)
    no_hit(rig)


def test_a_page_that_comes_later_is_watched(rig: Rig) -> None:
    at = place(rig, f"mov dword ptr [{0x700000 + 64:#x}], 7; inc ebx")
    arm(rig, 0, 0x700000 + 64, WRITE, 4)
    rig.map(0x700000, 0, 0)
    rig.gate(14, HANDLERS)

    def mend(_vcpu: object, vector: int) -> bool:
        if vector == 14:
            rig.map(0x700000, DATA, P | W | U)
        return vector == 14

    rig.platform.on_exception = mend
    assert rig.run() == "poweroff"
    assert [seen[0] for seen in rig.platform.seen] == [14, 1]
    assert rig.platform.seen[1][3] == at[1]


def test_what_faults_after_its_access_is_told_once_it_is_done(rig: Rig) -> None:
    rig.map(0x700000, 0, 0)
    rig.cpu.set("esi", DATA)
    rig.cpu.rsp = 0x700800
    at = place(rig, f"push {'qword ptr [rsi]' if rig.long else 'dword ptr [esi]'}; inc ebx")
    arm(rig, 0, DATA, ACCESS, 4)

    def mend(_vcpu: object, vector: int) -> bool:
        rig.map(0x700000, 0x200000, P | W | U)
        return vector == 14

    rig.platform.on_exception = mend
    assert rig.run() == "poweroff"
    assert [(seen[0], seen[3]) for seen in rig.platform.seen] == [(14, at[0]), (1, at[1])]


def test_several_at_once(rig: Rig) -> None:
    at = place(rig, f"mov [{DATA + 64:#x}], eax; inc ebx")
    for number, (address, length) in enumerate(((DATA + 64, 4), (DATA + 66, 1), (DATA + 68, 4))):
        arm(rig, number, address, WRITE, length)
    hit(rig, at[1], 3)


def test_local_and_global_enable_alike_and_none_does_not(rig: Rig) -> None:
    for enable, expected in ((0, []), (1, [1]), (2, [1]), (3, [1])):
        rig.platform.seen.clear()
        rig.cpu.wake()
        rig.cpu.rip = CODE
        place(rig, "inc ebx; inc ebx")
        rig.cpu.insn.mov_to_dr(0, CODE)
        rig.cpu.insn.mov_to_dr(7, dr7(0, EXECUTE, enable=enable))
        assert rig.run() == "poweroff"
        assert [seen[0] for seen in rig.platform.seen] == expected


@pytest.mark.parametrize("de", [False, True])
@pytest.mark.parametrize("code", ["in al, 0x44", "out 0x46, al", "in eax, 0x42", "out 0x43, ax"])
def test_ports_with_de(rig: Rig, code: str, *, de: bool) -> None:
    at = place(rig, f"inc ebx; {code}; inc ebx")
    rig.cpu.insn.mov_to_cr(4, rig.cpu.cr4 | (DE if de else 0))
    arm(rig, 1, 0x44, PORT, 4)
    if de:
        hit(rig, at[2], 2)
    else:
        no_hit(rig)


def test_other_ports_pass(rig: Rig) -> None:
    rig.cpu.insn.mov_to_cr(4, rig.cpu.cr4 | DE)
    arm(rig, 1, 0x44, PORT, 2)
    place(rig, "in al, 0x46; out 0x43, al; in eax, 0x40; inc ebx")
    no_hit(rig)


def test_single_step(rig: Rig) -> None:
    at = place(rig, "inc ebx; inc ebx")
    rig.cpu.rflags |= TF
    hit(rig, at[1], DR6_BS)
    assert rig.frame()[2] & TF


def test_single_step_over_what_python_does(rig: Rig) -> None:
    register = "rax" if rig.long else "eax"
    for code in ("rdmsr", f"mov {register}, dr6", f"mov dr3, {register}"):
        rig.platform.seen.clear()
        rig.cpu.wake()
        rig.cpu.rip = CODE
        at = place(rig, f"{code}; inc ebx")
        rig.cpu.set("ecx", 0x1B)
        rig.cpu.rflags |= TF
        hit(rig, at[1], DR6_BS)


def test_single_step_and_data_in_one_exception(rig: Rig) -> None:
    at = place(rig, f"mov [{DATA}], eax; inc ebx")
    arm(rig, 1, DATA, WRITE, 4)
    rig.cpu.rflags |= TF
    hit(rig, at[1], DR6_BS | 2)


@pytest.mark.parametrize("load", ["mov ss, ax", "pop ss", "mov ss, [{data}]"])
def test_nothing_comes_directly_after_a_load_of_ss(rig: Rig, load: str) -> None:
    if rig.long and load == "pop ss":
        return
    rig.memory.set_u32(DATA, 0x10)
    for what in ("step", "execute", "data"):
        if what == "data" and "[" not in load:
            continue
        rig.platform.seen.clear()
        rig.cpu.wake()
        rig.memory.set_u32(STACK - 16, 0x10)
        rig.cpu.insn.mov_to_dr(7, 0)
        rig.cpu.insn.mov_to_dr(6, 0)
        rig.cpu.set("eax", 0x10)
        rig.cpu.set("ebx", 0)
        rig.cpu.rsp = STACK - 16
        at = place(rig, f"nop; {load.format(data=DATA)}; inc ebx; inc ebx")
        rig.cpu.rip = at[1]
        if what == "step":
            rig.cpu.rflags |= TF
            hit(rig, at[3], DR6_BS)
        elif what == "execute":
            arm(rig, 0, at[2], EXECUTE)
            no_hit(rig)
        else:
            arm(rig, 0, DATA, ACCESS, 4)
            hit(rig, at[3], 1)


def test_sti_does_not_hide_a_step(rig: Rig) -> None:
    at = place(rig, "sti; inc ebx")
    rig.cpu.rflags |= TF
    hit(rig, at[1], DR6_BS)


@pytest.mark.parametrize("code", [".byte 0xf1", ".byte 0x66, 0xf3, 0x2e, 0xf1"])
@pytest.mark.parametrize("user", [False, True])
def test_icebp_traps_behind_itself_whatever_the_gate_says(rig: Rig, code: str, *, user: bool) -> None:
    at = place(rig, f"inc ebx; {code}; inc ebx", USER_CODE if user else CODE)
    if user:
        rig.user()
    hit(rig, at[2], 0)


@pytest.mark.parametrize("code", ["mov {r}, dr0", "mov dr1, {r}", "mov {r}, dr7", "mov dr7, {r}", "mov {r}, dr6"])
def test_gd_guards_the_registers_once(rig: Rig, code: str) -> None:
    at = place(rig, "inc ebx; " + code.format(r="rax" if rig.long else "eax"))
    rig.cpu.insn.mov_to_dr(7, 1 << 13)
    hit(rig, at[1], DR6_BD)
    assert not rig.cpu.debug.read(7) & 1 << 13


def test_python_is_guarded_too(rig: Rig) -> None:
    rig.cpu.insn.mov_to_dr(7, 1 << 13)
    with pytest.raises(GuestFault) as caught:
        rig.cpu.insn.mov_from_dr(0)
    assert caught.value.vector == 1
    assert rig.cpu.insn.mov_from_dr(6) == DR6_RESET | DR6_BD


@pytest.mark.parametrize("number", range(8))
def test_the_guest_moves_all_of_them(rig: Rig, number: int) -> None:
    register, other = ("r9", "r12") if rig.long else ("esi", "ebp")
    at = place(rig, f"mov dr{number}, {register}; mov {other}, dr{number}")
    rig.cpu.set(register, 0xFFFFFFFF if number >= 4 else 0x12345678)
    rig.gate(13, HANDLERS)
    rig.gate(6, HANDLERS)
    if number in {5, 7}:
        rig.cpu.set(register, 0xFFFF0000)
        rig.cpu.insn.mov_to_dr(7, 0)
        rig.cpu.set(register, 0x0000DC00)
    assert rig.run() == "poweroff"
    assert rig.platform.seen == []
    assert rig.cpu.rip == at[2] + 1
    expected = {4: 0xFFFFFFFF, 6: 0xFFFFFFFF, 5: 0xDC00 & 0x2FFF | 0x400, 7: 0xDC00 & 0x2FFF | 0x400}
    assert rig.cpu.get(other) == expected.get(number, 0x12345678)


def test_four_and_five_need_de_clear(rig: Rig) -> None:
    rig.gate(6, HANDLERS)
    rig.cpu.insn.mov_to_cr(4, rig.cpu.cr4 | DE)
    at = place(rig, f"mov {'rax' if rig.long else 'eax'}, dr4")
    assert rig.run() == "poweroff"
    assert rig.platform.seen == [(6, None, None, at[0])]


def test_only_the_vcpu_that_armed_it_traps(make_rig: Callable[..., Rig], kind: MachineKind) -> None:
    rig = make_rig(kind, vcpus=2)
    place(rig, f"mov [{DATA}], eax; inc ebx; inc ebx")
    first = rig.machine.vcpus[0].insn
    first.mov_to_dr(0, DATA)
    first.mov_to_dr(7, dr7(0, WRITE, 4))
    assert rig.run() == "poweroff"
    assert len(rig.platform.seen) == 1
    assert [vcpu.debug.read(6) for vcpu in rig.machine.vcpus] == [DR6_RESET | 1, DR6_RESET]


def test_snapshots_hold_them(rig: Rig) -> None:
    at = place(rig, "inc ebx; inc ebx; inc ebx")
    clean = rig.machine.snapshot()
    arm(rig, 0, at[1], EXECUTE)
    armed = rig.machine.snapshot()
    rig.machine.restore(clean)
    no_hit(rig)
    rig.machine.restore(armed)
    hit(rig, at[1], 1)


def test_what_is_not_armed_leaves_no_hook(rig: Rig) -> None:
    engine = rig.machine._slots[0].engine
    place(rig, "inc ebx")
    for kind, length in ((EXECUTE, 1), (WRITE, 4)):
        arm(rig, 0, DATA, kind, length)
        assert engine._stopping
        rig.cpu.insn.mov_to_dr(7, 0)
        assert not engine._stopping


_PLACES = st.integers(0, 24)
_SIZES = st.sampled_from([1, 2, 4, 8])
_MODES = st.sampled_from([(write, loads) for write in (False, True) for loads in (False, True)])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(list(MachineKind)), _PLACES, _SIZES, _PLACES, _SIZES.filter(lambda size: size < 8), _MODES)
def test_any_overlap_counts(
    rigs: Callable[..., Rig],
    kind: MachineKind,
    watched: int,
    length: int,
    touched: int,
    size: int,
    mode: tuple[bool, bool],
) -> None:
    write, loads = mode
    rig = rigs(kind)
    name = {1: "al", 2: "ax", 4: "eax"}[size]
    place(rig, f"mov [{DATA + touched:#x}], {name}" if write else f"mov {name}, [{DATA + touched:#x}]")
    arm(rig, 0, DATA + watched, ACCESS if loads else WRITE, length)
    assert rig.run() == "poweroff"
    start = watched & -length
    overlaps = touched < start + length and start < touched + size
    assert bool(rig.platform.seen) == (overlaps and (write or loads))
    rig.machine.close()
