"""Gates that stand alone in a guest's text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import MachineError
from pvops_core.machine import MachineKind, Reschedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine import Vcpu
    from tests.machine.conftest import Rig

CODE, FIRST, FAR = 0x10000, 0x38000, 0x38800
GATE = bytes.fromhex("eb05 e900000000 c3")  # jmp to the ret; a jump elsewhere; ret
BACK = 7


def call(at: int, target: int) -> bytes:
    return b"\xe8" + (target - at - 5 & 0xFFFFFFFF).to_bytes(4, "little")


def calls(*targets: int) -> bytes:
    return b"".join(call(CODE + 5 * number, target) for number, target in enumerate(targets)) + b"\xf4"


def opened(rig: Rig, handlers: dict[int, Callable[[Vcpu], None]]) -> None:
    for address in handlers:
        rig.memory.write(address, GATE)
    rig.machine.single_gates.open({at: (handler, at + BACK) for at, handler in handlers.items()})


def test_each_is_called_once_for_each_call_and_returns(rig: Rig) -> None:
    seen: list[int] = []
    near = [FIRST + 8 * number for number in range(4)]
    opened(rig, {at: lambda _cpu, at=at: seen.append(at) for at in (*near, FAR)})  # type: ignore[misc]
    rig.code(calls(near[0], FAR, near[3], near[1], near[0]))
    assert rig.run() == "poweroff"
    assert seen == [near[0], FAR, near[3], near[1], near[0]]
    assert rig.cpu.rsp == 0x20000


def test_what_lies_between_two_is_nobody_s(rig: Rig) -> None:
    seen: list[int] = []
    opened(rig, {at: lambda cpu: seen.append(cpu.rip) for at in (FIRST, FIRST + 32)})
    rig.memory.write(FIRST + 16, b"\x90\xc3")
    rig.code(calls(FIRST + 16, FIRST + BACK))
    assert rig.run() == "poweroff"
    assert seen == []


def test_registers_and_flags_set_by_a_handler_hold(rig: Rig) -> None:
    def handler(cpu: Vcpu) -> None:
        cpu.set("rax", cpu.get("rax") * 3)
        cpu.rflags |= 0x41

    opened(rig, {FIRST: handler})
    rig.cpu.set("rax", 5)
    rig.code(calls(FIRST))
    assert rig.run() == "poweroff"
    assert (rig.cpu.get("rax"), rig.cpu.rflags & 0x41) == (15, 0x41)


def test_a_handler_may_send_the_guest_elsewhere(rig: Rig) -> None:
    opened(rig, {FIRST: lambda cpu: setattr(cpu, "rip", CODE + 0x100)})
    rig.code("f4", CODE + 0x100)
    rig.code(calls(FIRST))
    assert rig.run() == "poweroff"
    assert rig.cpu.rip == CODE + 0x101


def test_one_that_has_to_wait_is_called_again(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.X86_64)
    seen: list[int] = []

    def handler(_cpu: Vcpu) -> None:
        seen.append(1)
        if len(seen) < 3:
            raise Reschedule

    opened(rig, {FIRST: handler})
    rig.code(calls(FIRST))
    assert rig.run() == "poweroff"
    assert seen == [1, 1, 1]


def test_an_interrupted_call_is_not_made_twice(rig: Rig) -> None:
    seen: list[str] = []

    def handler(_cpu: Vcpu) -> None:
        seen.append("call")
        rig.machine.defer(lambda: seen.append("action"))

    opened(rig, {FIRST: handler})
    rig.code(calls(FIRST))
    assert rig.run() == "poweroff"
    assert seen == ["call", "action"]


def test_an_error_of_a_handler_ends_the_run(rig: Rig) -> None:
    def handler(_cpu: Vcpu) -> None:
        raise LookupError("mine")

    opened(rig, {FIRST: handler})
    rig.code(calls(FIRST))
    with pytest.raises(LookupError, match="mine"):
        rig.run()


def test_closed_they_are_plain_jumps_and_the_others_stay(rig: Rig) -> None:
    seen: list[int] = []
    opened(rig, {at: lambda _cpu, at=at: seen.append(at) for at in (FIRST, FIRST + 8, FAR)})  # type: ignore[misc]
    rig.machine.single_gates.close(FIRST, FAR)
    rig.code(calls(FIRST, FIRST + 8, FAR))
    assert rig.run() == "poweroff"
    assert seen == [FIRST + 8]


def test_one_that_was_opened_again_has_its_new_handler(rig: Rig) -> None:
    seen: list[str] = []
    opened(rig, {FIRST: lambda _cpu: seen.append("old")})
    opened(rig, {FIRST: lambda _cpu: seen.append("new")})
    rig.code(calls(FIRST))
    assert rig.run() == "poweroff"
    assert seen == ["new"]


def test_they_do_not_change_from_inside_a_handler(rig: Rig) -> None:
    refused: list[str] = []

    def handler(_cpu: Vcpu) -> None:
        for change in (lambda: rig.machine.single_gates.open({}), lambda: rig.machine.single_gates.close(FIRST)):
            with pytest.raises(MachineError) as error:
                change()
            refused.append(str(error.value))

    opened(rig, {FIRST: handler})
    rig.code(calls(FIRST))
    assert rig.run() == "poweroff"
    assert ["defer it" in each for each in refused] == [True, True]


def test_every_processor_comes_by(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.X86_64, vcpus=3)
    seen: list[int] = []
    opened(rig, {FIRST: lambda cpu: seen.append(cpu.index)})
    rig.code(calls(FIRST))
    assert rig.run() == "poweroff"
    assert sorted(seen) == [0, 1, 2]
