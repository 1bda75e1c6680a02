"""The run loop: slices, deferred actions, errors, dead and bad guests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvops_core.errors import MachineError
from pvops_core.machine import Machine, MachineKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine import Vcpu
    from tests.machine.conftest import Rig

CODE, DATA, HANDLERS, GATES = 0x10000, 0x30000, 0x8000, 0x38000
# A generator that mixes a register with a counter in memory: mov ecx, n; l: imul eax, eax, 0x41c64e6d;
# add eax, 0x3039; xor [edi], eax; add eax, [edi]; jnp m; inc eax; m: loop l; hlt
MIXER = "b9{count} 69c06d4ec641 0539300000 3107 0307 7b02 ffc0 e2eb f4"


def mixer(rig: Rig, count: int) -> int:
    rig.code(MIXER.format(count=count.to_bytes(4, "little").hex()))
    rig.cpu.set("rdi", DATA)
    assert rig.run(10**9) == "poweroff"
    return rig.memory.u32(DATA) << 32 | rig.cpu.get("eax")


def test_slices_of_every_length_give_the_same_result(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    results = set()
    instructions = set()
    for slice_blocks in (1, 2, 3, 7, 100, 10_000):
        rig = make_rig(kind, slice_blocks=slice_blocks, count_instructions=True, seed=slice_blocks)
        results.add(mixer(rig, 2000))
        instructions.add(rig.machine.instructions)
    assert len(results) == 1
    assert len(instructions) == 1
    assert 2000 * 6 + 2 < instructions.pop() <= 2000 * 7 + 2


def test_instructions_are_counted_exactly(rig: Rig, make_rig: Callable[..., Rig]) -> None:
    assert rig.machine.instructions == 0
    counting = make_rig(rig.kind, count_instructions=True)
    counting.code("b90a000000 90 e2fd f4")
    assert counting.run() == "poweroff"
    assert counting.machine.instructions == 1 + 20 + 1


def test_time_passes_with_blocks_and_ends_a_loop(rig: Rig) -> None:
    rig.code("ebfe")
    assert rig.run(5000) == "timeout"
    assert 5000 <= rig.machine.clock.ns < 5100
    before = rig.machine.clock.ns
    assert rig.run(5000) == "timeout"
    assert rig.machine.clock.ns - before >= 5000


def test_an_error_in_a_handler_ends_the_run_with_it(rig: Rig) -> None:
    class OwnError(Exception):
        pass

    def handler(_vcpu: Vcpu, _vector: int) -> bool:
        raise OwnError("mine")

    rig.platform.on_exception = handler
    rig.code("0f0b f4")
    with pytest.raises(OwnError, match="mine"):
        rig.run()
    rig.platform.on_exception = lambda vcpu, _: (setattr(vcpu, "rip", vcpu.rip + 2), True)[1]
    assert rig.run() == "poweroff"
    assert rig.cpu.rip == CODE + 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MachineError])
def test_whatever_a_gate_raises_comes_out(rig: Rig, error: type[BaseException]) -> None:
    def handler(_vcpu: Vcpu) -> None:
        raise error("out")

    rig.machine.gates.map(GATES, 2)
    rig.memory.write(GATES, rig.machine.gates.text)
    rig.machine.gates.bind(0, handler)
    rig.code(b"\xe8" + (GATES - CODE - 5).to_bytes(4, "little") + b"\xf4")
    with pytest.raises(error):
        rig.run()
    rig.machine.gates.bind(0, lambda vcpu: vcpu.set("rax", 7))
    assert rig.run() == "poweroff"
    assert rig.cpu.get("rax") == 7


def test_runs_do_not_nest(rig: Rig) -> None:
    rig.platform.on_exception = lambda *_: bool(rig.machine.run())
    rig.code("0f0b f4")
    with pytest.raises(MachineError, match="running already"):
        rig.run()


def test_a_fault_that_nobody_mends_ends(rig: Rig) -> None:
    rig.platform.on_exception = lambda *_: True
    for code in ("0f0b", "ffe0"):
        rig.code(code)
        rig.cpu.set("rax", 0x300000)
        stop = rig.machine.run()
        assert stop.reason == "crash"
        assert "no progress" in stop.detail


def test_leaving_physical_memory_is_a_crash(rig: Rig) -> None:
    rig.map(0x300000, 0x7FFF000, 7)
    for code in ("8b06", "8906", "ffe6"):
        rig.code(code + "f4")
        rig.cpu.set("rsi", 0x300000)
        rig.cpu.rip = CODE
        stop = rig.machine.run(max_ns=10**6)
        assert stop.reason == "crash"
        assert "outside physical memory" in stop.detail


def test_halted_for_ever_is_dead(rig: Rig) -> None:
    rig.platform.halted = lambda vcpu: vcpu.halt()  # type: ignore[method-assign]
    rig.code("faf4")
    assert rig.run() == "dead"


def test_an_idle_that_does_nothing_is_an_error(rig: Rig) -> None:
    rig.platform.halted = lambda vcpu: vcpu.halt()  # type: ignore[method-assign]
    rig.platform.idle = lambda: True  # type: ignore[method-assign]
    rig.code("f4")
    with pytest.raises(MachineError, match="idle"):
        rig.run()


def test_deferred_actions_run_after_the_handler_in_order(rig: Rig) -> None:
    seen: list[object] = []

    def handler(vcpu: Vcpu, _vector: int) -> bool:
        vcpu.rip += 2
        rig.machine.defer(lambda: seen.append(("first", rig.machine.running, vcpu.rip)))
        rig.machine.defer(lambda: seen.append("second"))
        seen.append("handler")
        return True

    rig.platform.on_exception = handler
    rig.code("0f0b f4")
    assert rig.run() == "poweroff"
    assert seen == ["handler", ("first", False, CODE + 2), "second"]


def test_a_closed_machine_says_so(kind: MachineKind) -> None:
    with Machine(kind) as machine:
        pass
    machine.close()
    with pytest.raises(MachineError, match="closed"):
        machine.run()


@pytest.mark.parametrize("options", [{"memory": 100}, {"vcpus": 0}, {"slice_blocks": 0}, {"memory": 0}])
def test_impossible_machines_are_refused(kind: MachineKind, options: dict[str, int]) -> None:
    with pytest.raises(MachineError):
        Machine(kind, **options)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(code=st.binary(min_size=1, max_size=40), user=st.booleans())
@pytest.mark.parametrize("which", list(MachineKind))
def test_any_code_ends_typed(which: MachineKind, code: bytes, *, user: bool, rigs: Callable[..., Rig]) -> None:
    """Random bytes, handlers that halt: the run ends with a reason or a MachineError, never otherwise."""
    rig = rigs(which)
    rig.memory.array[0x8000:0x40000] = 0xCC  # whoever runs astray soon traps
    for vector in range(32):
        rig.gate(vector, HANDLERS, dpl=3)
    rig.code("f4", HANDLERS)
    if user:
        rig.code(code + b"\xcd\x80", 0x18000)
        rig.gate(0x80, HANDLERS, dpl=3)
        rig.user()
    else:
        rig.code(code + b"\xf4")
    try:
        assert rig.run(200_000) in {"poweroff", "timeout", "crash", "dead"}
    except MachineError as error:
        assert error.vcpu == 0  # noqa: PT017
    finally:
        rig.machine.close()
