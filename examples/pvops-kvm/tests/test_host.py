"""KVM itself: what a guest sees by cpuid, in its MSRs, by hypercalls, and in the memory that it told the host of."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from pvops_core.machine import GuestFault
from pvops_core.session import Session
from pvops_core.testing.call import Caller, CallError
from pvops_core.testing.points import run_to
from pvops_core.testing.textpage import TextPage

if TYPE_CHECKING:
    from pvops_core.backends import Backend

WALL, TIME, STEAL, POLL = 0x4B564D00, 0x4B564D01, 0x4B564D03, 0x4B564D05
VMCALL, VMMCALL = b"\x0f\x01\xc1", b"\x0f\x01\xd9"
ENOSYS, EPERM = 1000, 1


@pytest.fixture
def session(backends: Mapping[str, Backend]) -> Iterator[Session]:
    with Session.of_builtin("6.1-64", "kvm", backends=backends, vcpus=2, memory=4 << 20) as made:
        run_to(made, "patched")
        yield made


@pytest.fixture
def call(session: Session) -> Caller:
    return Caller(session)


def test_the_signature_and_the_features_are_kvms(call: Caller) -> None:
    words = [call.page() for _ in range(4)]

    def cpuid(leaf: int) -> list[int]:
        call.cpu.set_u32(words[0], leaf)
        call("cpuid", *words)
        return [call.cpu.u32(word) for word in words]

    highest, *signature = cpuid(0x40000000)
    assert highest == 0x40000001
    assert struct.pack("<3I", *signature) == b"KVMKVMKVM\0\0\0"
    features, _, _, hints = cpuid(0x40000001)
    for bit in (1, 3, 5, 7, 9, 24):
        assert features >> bit & 1, bit
    assert not hints & 1
    assert cpuid(1)[2] >> 31, "a hypervisor is there"


def test_the_clock_goes_as_the_guest_reckons(call: Caller, session: Session) -> None:
    page = call.page()
    call("write_msr", TIME, call.physical(page) | 1, 0)
    version, _pad, stamp, start, mul, shift, flags = struct.unpack("<IIQQIbB", call.cpu.read_virtual(page, 30))
    assert version
    assert not version & 1
    assert flags & 1
    call("io_delay")
    delta = call.cpu.insn.rdtsc() - stamp
    ticks = delta << shift if shift >= 0 else delta >> -shift
    assert start + (ticks * mul >> 32) == pytest.approx(session.machine.clock.ns, abs=2)


def test_the_wall_clock_is_when_the_machine_started(call: Caller) -> None:
    page = call.page()
    call("write_msr", WALL, call.physical(page), 0)
    version, seconds, nanoseconds = struct.unpack("<III", call.cpu.read_virtual(page, 12))
    assert version == 2
    assert seconds == 1186704000  # 2007-08-10, what the machine's CMOS clock shows at start
    assert nanoseconds == 0


@pytest.mark.parametrize(
    ("msr", "value"),
    [
        (STEAL, 0x1000 | 1 << 3),  # reserved bits
        (STEAL, 0x1020 | 1),  # not aligned to 64 bytes
        (STEAL, 1 << 40 | 1),  # no memory there
        (TIME, 0x1002 | 1),
        (WALL, 1 << 40),
        (POLL, 2),
    ],
)
def test_what_a_register_does_not_take_is_a_fault(call: Caller, msr: int, value: int) -> None:
    before = call.cpu.insn.rdmsr(msr)
    with pytest.raises(GuestFault) as caught:
        call.cpu.insn.wrmsr(msr, value)
    assert caught.value.vector == 13
    assert call.cpu.insn.rdmsr(msr) == before
    err = call.page()
    assert call("write_msr_safe", msr, value & 0xFFFFFFFF, value >> 32).result == (1 << 32) - 5
    assert call("read_msr_safe", msr, err).result == before
    assert call.cpu.u32(err) == 0


def test_registers_read_back_and_belong_to_their_vcpu(session: Session) -> None:
    first, second = session.machine.vcpus
    for msr, value in ((STEAL, 0x200000 | 1), (TIME, 0x201000 | 1), (POLL, 0)):
        first.insn.wrmsr(msr, value)
        assert first.insn.rdmsr(msr) == value
        assert second.insn.rdmsr(msr) == (1 if msr == POLL else 0)


def test_a_register_that_is_not_offered_is_not_there(backends: Mapping[str, Backend]) -> None:
    platform: Any = backends["kvm"].platform
    offered = platform.offered
    poor = type("Poor", (platform,), {"offered": offered & ~(1 << 5)})
    made = {**backends, "kvm": attrs.evolve(backends["kvm"], platform=poor, ops=None)}
    with Session.of_builtin("6.1-64", "kvm", backends=made, memory=4 << 20) as session:
        run_to(session, "patched")
        cpu = session.machine.vcpus[0]
        cpu.insn.wrmsr(TIME, 0x200000 | 1)
        with pytest.raises(GuestFault):
            cpu.insn.wrmsr(STEAL, 0x200000 | 1)


def _hypercall(call: Caller, instruction: bytes, number: int, *arguments: int) -> int:
    for name, value in zip(("rax", "rbx", "rcx", "rdx", "rsi"), (number, *arguments, 0, 0, 0, 0), strict=False):
        call.cpu.set(name, value)
    TextPage(call).run(instruction)
    result = call.cpu.get("rax")
    return result - (1 << 64) if result >> 63 else result


@pytest.mark.parametrize("instruction", [VMCALL, VMMCALL], ids=["vmcall", "vmmcall"])
def test_hypercalls_are_instructions(call: Caller, session: Session, instruction: bytes) -> None:
    assert _hypercall(call, instruction, 5, 0, 1) == 0
    assert _hypercall(call, instruction, 11, 1) == 0
    assert _hypercall(call, instruction, 1) == 0
    assert _hypercall(call, instruction, 77) == -ENOSYS
    wanted = {"KVM_HC_KICK_CPU": 1, "KVM_HC_SCHED_YIELD": 1, "KVM_HC_VAPIC_POLL_IRQ": 1, "0x4d": 1}
    assert session.platform.hypercalls == wanted
    assert not session.platform.traps["#UD"]


def test_user_mode_may_not_call(session: Session, call: Caller) -> None:
    call.write(VMCALL)
    cpu = session.machine.vcpus[0]
    cpu.rip = call.text
    cpu.set("rax", 5)
    cpu.set_segments(3, 0x33, 0x2B)
    session.platform.exception(cpu, 6, None, None)
    assert cpu.get("rax") == (1 << 64) - EPERM
    assert cpu.rip == call.text + 3
    assert not session.platform.hypercalls


def test_another_undefined_instruction_is_the_guests(call: Caller, session: Session) -> None:
    with pytest.raises(CallError):
        TextPage(call).run(b"\x0f\x0b\x90")
    assert session.platform.traps["#UD"]


def test_time_that_others_took_is_stolen(session: Session, call: Caller) -> None:
    host: Any = session.platform
    first, second = session.machine.vcpus
    page = call.page()
    first.insn.wrmsr(STEAL, call.physical(page) | 1)
    clock = session.machine.clock
    second.wake()
    host.before_entry(first)
    host.before_entry(second)
    assert first.u8(page + 16) == 1, "it is off its processor"
    clock.advance(5000)
    host.before_entry(first)
    steal, version, flags, preempted = struct.unpack("<QIIB", first.read_virtual(page, 17))
    assert steal == 5000
    assert not version & 1
    assert version
    assert not flags
    assert not preempted
    clock.advance(7000)
    host.before_entry(first)
    assert first.u64(page) == 5000, "it ran"
    first.halt()
    host.before_entry(second)
    clock.advance(9000)
    first.wake()
    host.before_entry(first)
    assert first.u64(page) == 5000, "it slept"


def test_a_guest_that_shares_its_processor_knows_what_it_lost(backends: Mapping[str, Backend]) -> None:
    with Session.of_builtin("6.1-64", "kvm", backends=backends, vcpus=2) as session:
        assert session.run(max_ns=200_000_000).reason == "poweroff"
        function = session.switchboard.implementation("io_delay").function
        ops: Any = getattr(function, "__self__")  # noqa: B009 - a method has it, a callable need not
        stolen = [ops.steal_clock(number) for number in range(2)]
        assert ops.online == {0, 1}
        assert sum(stolen) > 0
        assert all(0 <= ns < session.machine.clock.ns for ns in stolen)
        logged = sum(int(dict(event.fields)["ns"]) for event in session.machine.log.events if event.kind == "steal")
        assert logged == sum(stolen)
