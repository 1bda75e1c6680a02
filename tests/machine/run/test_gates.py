"""Gates: guest code that calls Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import MachineError
from pvops_core.machine import MachineKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine import Vcpu
    from tests.machine.conftest import Rig

CODE, GATES, DATA = 0x10000, 0x38000, 0x30000


def gates(rig: Rig, count: int = 4) -> None:
    rig.machine.gates.map(GATES, count)
    rig.memory.write(GATES, rig.machine.gates.text)


def call(at: int, target: int) -> bytes:
    return b"\xe8" + (target - at - 5 & 0xFFFFFFFF).to_bytes(4, "little")


def test_a_gate_is_called_once_per_call_and_returns(rig: Rig) -> None:
    gates(rig)
    calls: list[int] = []

    def handler(vcpu: Vcpu) -> None:
        calls.append(vcpu.get("rax"))
        vcpu.set("rax", vcpu.get("rax") * 3)

    rig.machine.gates.bind(2, handler)
    address = rig.machine.gates.address(2)
    rig.code(call(CODE, address) + call(CODE + 5, address) + b"\xf4")
    rig.cpu.set("rax", 5)
    assert rig.run() == "poweroff"
    assert calls == [5, 15]
    assert rig.cpu.get("rax") == 45
    assert rig.cpu.rsp == 0x20000


def test_a_handler_may_send_the_guest_elsewhere(rig: Rig) -> None:
    gates(rig)
    rig.machine.gates.bind(0, lambda vcpu: setattr(vcpu, "rip", CODE + 0x100))
    rig.code("f4", CODE + 0x100)
    rig.code(call(CODE, GATES))
    assert rig.run() == "poweroff"
    assert rig.cpu.rip == CODE + 0x101


@pytest.mark.parametrize("way", ["property", "set", "batch", "registers"])
def test_every_way_to_write_rip_moves_the_guest(rig: Rig, way: str) -> None:
    gates(rig)
    rig.cpu.rip = CODE + 0x100
    elsewhere = rig.cpu.save_registers()
    rig.cpu.rip = CODE
    batch = rig.cpu.batch("rax", "rip")

    def handler(vcpu: Vcpu) -> None:
        if way == "property":
            vcpu.rip = CODE + 0x100
        elif way == "set":
            vcpu.set("rip", CODE + 0x100)
        elif way == "batch":
            batch.write(1, CODE + 0x100)
        else:
            vcpu.load_registers(elsewhere)

    rig.machine.gates.bind(0, handler)
    rig.code("90 e464 f4", CODE + 0x100)
    rig.code(call(CODE, GATES))
    assert rig.run() == "poweroff"
    assert rig.cpu.rip == CODE + 0x104


def test_a_fault_of_a_handler_goes_to_the_guest(rig: Rig) -> None:
    gates(rig)
    rig.machine.gates.bind(0, lambda vcpu: vcpu.set_u32(0x300000, 1))
    rig.gate(14, 0x8000)
    rig.code("f4", 0x8000)
    rig.code(call(CODE, GATES))
    assert rig.run() == "poweroff"
    assert rig.platform.seen == [(14, 2, 0x300000, GATES)]
    assert rig.cpu.cr2 == 0x300000


def test_flags_and_level_set_by_a_handler_hold(rig: Rig) -> None:
    gates(rig)

    def handler(vcpu: Vcpu) -> None:
        vcpu.rflags |= 0x41
        vcpu.set_segments(3, 0x20, 0x18)

    rig.machine.gates.bind(0, handler)
    rig.gate(0x80, 0x8000, dpl=3)
    rig.code("f4", 0x8000)
    rig.code(call(CODE, GATES) + b"\xcd\x80")
    assert rig.run() == "poweroff"
    frame = rig.frame(count=4)
    assert (frame[1], frame[2] & 0x41, frame[3]) == (0x23, 0x41, 0x20000)


@pytest.mark.parametrize(("place", "what"), [(8, "no handler is bound"), (3, "the middle of a gate")])
def test_a_guest_that_strays_into_the_gates_has_crashed(rig: Rig, place: int, what: str) -> None:
    gates(rig)
    rig.code(call(CODE, GATES + place))
    stop = rig.machine.run(max_ns=1_000_000)
    assert stop.reason == "crash"
    assert what in stop.detail
    assert f"{GATES + place:#x}" in stop.detail
    assert rig.cpu.rip == GATES + place
    assert rig.cpu.pop() == CODE + 5


def test_an_interrupted_call_is_not_made_twice(rig: Rig) -> None:
    gates(rig)
    calls: list[str] = []

    def handler(_vcpu: Vcpu) -> None:
        calls.append("call")
        rig.machine.defer(lambda: calls.append("action"))

    rig.machine.gates.bind(0, handler)
    rig.code(call(CODE, GATES) + b"\xf4")
    assert rig.run() == "poweroff"
    assert calls == ["call", "action"]


def test_a_stop_in_a_gate_goes_on_behind_it(rig: Rig) -> None:
    gates(rig)
    rig.machine.gates.bind(0, lambda vcpu: vcpu.machine.stop("pause"))
    rig.code(call(CODE, GATES) + b"\xf4")
    assert rig.run() == "pause"
    assert rig.run() == "poweroff"


@pytest.mark.parametrize(("count", "stride"), [(0, 8), (1, 4)])
def test_bad_gates_are_refused(rig: Rig, count: int, stride: int) -> None:
    with pytest.raises(MachineError):
        rig.machine.gates.map(GATES, count, stride)


def test_without_gates_a_vcpu_at_address_0_is_at_none(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.X86_64, vcpus=2)
    rig.machine.vcpus[1].rip = 0  # where a real kernel's other vCPUs are until they are started
    rig.machine.vcpus[1].rsp = 0x123456789000  # not mapped
    rig.machine.quiesce([(CODE, CODE + 8)])
