"""Calls of guest code: the same from everywhere, a detour for the guest, and an error that says where everybody was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

from pvops_core.backends import load_backends
from pvops_core.errors import UsageError
from pvops_core.kinds import MachineKind
from pvops_core.machine import GuestFault, Vcpu
from pvops_core.machine.cpu.registers import GENERAL
from pvops_core.session.callee import Callee
from pvops_core.session.calls import CallError, Calls
from pvops_core.testing.fixtures.cells import MachineCell
from pvops_core.testing.fixtures.keptmachine import KeptMachine
from pvops_core.x86 import ARITHMETIC, FLAG_DF, FLAG_IF
from tests.machine.conftest import CODE, STACK, Rig

if TYPE_CHECKING:
    from pvops_core.backends import Backend

FUNCTION, GATE = CODE + 0x2000, CODE + 0x3000
MACHINES = [
    ("native", "2.6.24"),
    ("native", "2.6.24-pae"),
    ("native", "6.1-64"),
    ("xen", "2.6.24-pae"),
    ("xen", "6.1-64"),
    ("lguest", "2.6.24"),
]


@pytest.fixture(scope="module")
def backends() -> Mapping[str, Backend]:
    return load_backends().backends


@pytest.fixture(params=MACHINES, ids="-".join)
def kept(request: pytest.FixtureRequest, backends: Mapping[str, Backend]) -> Iterator[KeptMachine]:
    backend, layout = request.param
    with KeptMachine(MachineCell(backend, layout), backends, 0) as made:
        yield made


@pytest.fixture(params=list(MachineKind), ids=lambda kind: kind.value)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    made = Rig(request.param, vcpus=2)
    made.code("90 b801000000 b802000000")  # nop; mov eax, 1; mov eax, 2
    made.machine.vcpus[1].halt()
    yield made
    made.machine.close()


def state(cpu: Vcpu) -> tuple[int, ...]:
    return (*cpu.batch(*GENERAL[cpu.machine.kind.bits], "rsp", "rip").read(), cpu.rflags)


def calls(rig: Rig) -> Calls:
    return Calls(rig.machine, symbol_at=lambda va: ("code", va - CODE) if va >= CODE else None)


def function(rig: Rig, code: str, *arguments: int) -> Callee:
    rig.code(code, FUNCTION)
    rig.cpu.rip = CODE
    rig.cpu.rsp = STACK
    return Callee.function("it", FUNCTION, rig.kind.bits, *arguments)


def test_a_call_is_the_same_from_everywhere(kept: KeptMachine) -> None:
    """Alone and with the machine, back to its own landing and to another: result, time, faults, events."""
    found = set()
    for alone in (True, False):
        for landing in (None, kept.call.text):
            kept.restore()
            cpu, made = kept.vcpu, kept.session.calls
            began, text = state(cpu), kept.session.text_sha256()
            for op in ("irq_enable", "irq_disable", "save_fl"):
                with made.standing(cpu, made.op(op), landing) as call:
                    call.make(alone=alone, max_ns=100_000)
                    result = call.callee.result(cpu)
            found.add((result & FLAG_IF, kept.machine.clock.ns, tuple(call.faults), kept.machine.log.sha256))
            assert state(cpu)[:-1] == began[:-1]
            assert (state(cpu)[-1] ^ began[-1]) & (ARITHMETIC | FLAG_DF) == 0
            assert kept.session.text_sha256() == text
    assert len(found) == 1


def test_what_an_op_does_to_the_processor_stays(kept: KeptMachine) -> None:
    made = kept.session.calls
    for wanted in ("irq_enable", "irq_disable"):
        made.plain(kept.vcpu, made.op(wanted))
        with made.quiet(kept.vcpu):
            assert not made.plain(kept.vcpu, made.op("save_fl")) & FLAG_IF
        assert bool(made.plain(kept.vcpu, made.op("save_fl")) & FLAG_IF) == (wanted == "irq_enable")


def test_a_call_from_a_gate_does_not_run_into_it(backends: Mapping[str, Backend]) -> None:
    """An op that is about to be served is left alone, and served when the machine goes on."""
    for backend, layout in MACHINES:
        with KeptMachine(MachineCell(backend, layout, point="op:time_init"), backends, 0) as kept:
            assert kept.machine.gates.holds(kept.vcpu.rip)
            served = kept.session.switchboard.calls["time_init"]
            assert not kept.call("io_delay").changes
            assert kept.session.switchboard.calls["time_init"] == served
            assert kept.session.run(max_ns=2_000_000_000).reason == "poweroff"
            assert kept.session.switchboard.calls["time_init"] == served + 1


def test_a_stack_that_the_host_has_yet_to_shadow_is_written(backends: Mapping[str, Backend]) -> None:
    with KeptMachine(MachineCell("lguest", "2.6.24"), backends, 0) as kept:
        page = kept.call.page()
        kept.call("flush_tlb_kernel")
        kept.vcpu.rsp = page + 0x1000
        with pytest.raises(GuestFault):
            kept.vcpu.walk(kept.vcpu.rsp - 4, write=True)
        assert kept.call("io_delay").result == 0


@pytest.mark.parametrize("alone", [True, False])
def test_arguments_beyond_the_registers_lie_on_an_aligned_stack(rig: Rig, *, alone: bool) -> None:
    if rig.kind.bits == 32:
        callee = function(rig, "8b442404 03442408 c3", 0, 0, 0, 40, 2)  # mov eax, [esp + 4]; add eax, [esp + 8]; ret
    else:
        callee = function(rig, "488b442408 4803442410 c3", 0, 0, 0, 0, 0, 0, 40, 2)
    for misaligned in (0, 4, 8, 12):
        rig.cpu.rsp = STACK - misaligned
        with calls(rig).standing(rig.cpu, callee) as call:
            assert (rig.cpu.rsp + rig.size) % 16 == 0
            call.make(alone=alone)
            assert callee.result(rig.cpu) == 42
        assert (rig.cpu.rsp, rig.cpu.rip) == (STACK - misaligned, CODE)


@pytest.mark.parametrize("alone", [True, False])
def test_where_it_stood_is_where_it_stands(rig: Rig, *, alone: bool) -> None:
    callee = function(rig, "31c0 31db 31f6 f9 c3")  # xor eax, eax; xor ebx, ebx; xor esi, esi; stc; ret
    rig.cpu.set("rbx", 7)
    rig.cpu.rflags |= FLAG_DF
    before = state(rig.cpu)
    for _ in range(2):
        with calls(rig).standing(rig.cpu, callee) as call:
            assert not rig.cpu.rflags & FLAG_DF
            call.make(alone=alone)
            assert rig.cpu.get("rbx") == 0
        assert state(rig.cpu) == before


def test_a_breakpoint_where_it_stands_is_met_once(rig: Rig) -> None:
    callee = function(rig, "c3")
    met: list[int] = []

    def meet(vcpu: Vcpu) -> None:
        met.append(vcpu.index)
        rig.machine.stop("here")

    rig.machine.break_at(CODE, meet)
    rig.run(1000)
    calls(rig).plain(rig.cpu, callee)
    rig.run(1000)
    assert met == [0]


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("ebfe", "timeout 5000 ns of virtual time have passed; vcpu 0 at code"),
        ("5850 ffe0", "strayed.*vcpu 0 at code"),  # pop eax; push eax; jmp eax
        ("0f0b", "crash .*vector 6.*RIP 0x12000"),
    ],
)
def test_what_does_not_come_back_says_where_it_is(rig: Rig, code: str, message: str, *, alone: bool) -> None:
    callee = function(rig, code)
    for vector in (6, 8, 13, 14):
        rig.gate(vector, 0, present=0)
    with (
        pytest.raises(CallError, match=f"it did not come back: {message}") as caught,
        calls(rig).standing(rig.cpu, callee) as call,
    ):
        call.make(alone=alone, max_ns=5000)
    assert isinstance(caught.value, AssertionError)
    assert rig.cpu.rip != CODE
    assert bool(caught.value.faults) == (code == "0f0b")


def test_who_halts_with_interrupts_off_does_not_come_back(rig: Rig) -> None:
    callee = function(rig, "f4 c3")
    rig.machine.vcpus[1].wake()
    with pytest.raises(CallError, match="halted interrupts wait"):
        calls(rig).plain(rig.cpu, callee)


def test_a_32_bit_callee_may_take_its_arguments_off(rig: Rig) -> None:
    callee = function(rig, "c20400", 1, 2, 3, 4)  # ret 4
    if rig.kind.bits == 32:
        calls(rig).plain(rig.cpu, callee)
        assert rig.cpu.rsp == STACK
    else:
        with pytest.raises(CallError, match="strayed"):
            calls(rig).plain(rig.cpu, callee)


def test_a_thread_may_come_back_on_another_vcpu(rig: Rig) -> None:
    """As a scheduler moves it: the call ends there, and there it goes on from where it stood."""
    other = rig.machine.vcpus[1]
    callee = function(rig, "e8" + (GATE - FUNCTION - 5).to_bytes(4, "little").hex() + "c3")
    rig.machine.gates.map(GATE, 1)
    rig.memory.write(GATE, rig.machine.gates.text)

    def move(cpu: Vcpu) -> None:
        other.rsp, other.rip = cpu.rsp, cpu.machine.gates.return_address
        other.set("rax", 42)
        other.wake()
        cpu.rsp = STACK - 0x800
        cpu.halt()

    rig.machine.gates.bind(0, move)
    with calls(rig).standing(rig.cpu, callee) as call:
        call.make(alone=False)
        assert call.cpu is other
        assert callee.result(call.cpu) == 42
    assert (other.rip, other.rsp) == (CODE, STACK)


def test_what_cannot_be_called_is_refused(rig: Rig, backends: Mapping[str, Backend]) -> None:
    made = calls(rig)
    with pytest.raises(UsageError, match="no function 'x'"):
        made.function("x")
    with pytest.raises(UsageError, match="no table of ops"):
        made.op("save_fl")
    asked: list[str] = []

    def ask(_vcpu: Vcpu, _vector: int) -> bool:
        with pytest.raises(UsageError, match="while the machine runs") as caught:
            made.plain(rig.cpu, Callee.function("it", FUNCTION, rig.kind.bits))
        asked.append(str(caught.value))
        rig.machine.stop("asked")
        return True

    rig.platform.on_exception = ask
    rig.code("0f0b")
    rig.run(1000)
    assert asked
    with KeptMachine(MachineCell("native", "6.1-64"), backends, 0) as kept:
        kept.session.switchboard.switch("io_delay", None, by="test")
        assert not kept.call("io_delay").calls


def test_a_stack_that_cannot_be_written_is_a_fault_and_nothing_is_changed(rig: Rig) -> None:
    callee = function(rig, "c3")
    rig.cpu.rsp = 0x70_0000
    before = state(rig.cpu)
    with pytest.raises(GuestFault):
        calls(rig).plain(rig.cpu, callee)
    assert state(rig.cpu) == before
    rig.cpu.rsp = STACK
    calls(rig).plain(rig.cpu, callee)


def test_many_places_to_call_from(rig: Rig) -> None:
    """More than the engine keeps hooks for."""
    for number in (*range(40), 1):
        callee = function(rig, "b8" + number.to_bytes(4, "little").hex() + "c3")
        rig.cpu.rip = CODE + 16 * number
        rig.code("b801000000", rig.cpu.rip)
        assert calls(rig).plain(rig.cpu, callee) == number
