"""Many vCPUs: text coherence, the scheduler, snapshots and the event log."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import MachineError
from pvops_core.machine import MachineKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.machine.conftest import Rig

CODE, DATA, CALLEE, GATES = 0x10000, 0x30000, 0x12000, 0x38000
# l: call CALLEE; mov [edi], eax; jmp l
LOOP = "e8fb1f0000 8907 ebf7"


def looping(make_rig: Callable[..., Rig], kind: MachineKind, vcpus: int = 3, **options: int) -> Rig:
    """All vCPUs call one function that says 1, for ever, each to a word of its own."""
    rig = make_rig(kind, vcpus=vcpus, slice_blocks=50, **options)
    rig.code("b801000000 c3", CALLEE)
    rig.code_for_each(LOOP)
    assert rig.run(20_000) == "timeout"
    return rig


def said(rig: Rig) -> list[int]:
    return [rig.memory.u32(DATA + 4 * vcpu.index) for vcpu in rig.machine.vcpus]


@pytest.mark.parametrize("ranges", [1, 20])
def test_no_engine_runs_old_text_after_invalidate(kind: MachineKind, make_rig: Callable[..., Rig], ranges: int) -> None:
    rig = looping(make_rig, kind)
    assert said(rig) == [1, 1, 1]
    machine = rig.machine
    machine.quiesce([(CALLEE, CALLEE + 5)])
    rig.memory.set_u8(CALLEE + 1, 2)
    machine.invalidate([(CALLEE, CALLEE + 5)] * ranges)
    assert rig.run(20_000) == "timeout"
    assert said(rig) == [2, 2, 2]
    counted = machine.counts["code_flushes" if ranges > 8 else "code_ranges_dropped"]
    assert counted >= 3


def test_invalidate_reaches_a_vcpu_that_cannot_see_the_text(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    """A vCPU stopped at level 3, or with other tables, must not keep old translations."""
    rig = looping(make_rig, kind, vcpus=2)
    entry = rig.map(CALLEE, CALLEE, 3)
    other = rig.machine.vcpus[1]
    state = other.save_registers()
    other.flush_tlb()
    other.set_segments(3, 0x20, 0x18)
    rig.memory.set_u8(CALLEE + 1, 2)
    rig.machine.invalidate([(CALLEE, CALLEE + 5)])
    other.load_registers(state)
    assert entry
    assert rig.run(20_000) == "timeout"
    assert said(rig) == [2, 2]


def test_quiesce_leaves_nobody_inside(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    rig = looping(make_rig, kind)
    for start in (CODE, CALLEE):
        for vcpu in rig.machine.vcpus:
            vcpu.push(CODE + 5)  # where the callee's ret goes
            vcpu.rip = start + 5
        rig.machine.quiesce([(CODE + 1, CODE + 7), (CALLEE, CALLEE + 6)])
        for vcpu in rig.machine.vcpus:
            assert not CODE + 1 < vcpu.rip < CODE + 7
            assert not CALLEE < vcpu.rip < CALLEE + 6
    assert rig.run(20_000) == "timeout"
    assert said(rig) == [1, 1, 1]


def test_quiesce_gives_up_on_a_loop_inside(rig: Rig) -> None:
    rig.code("90 ebfd")
    rig.cpu.rip = CODE + 1
    assert rig.machine.quiesce([(CODE - 1, CODE + 3)]) == (0,)
    assert rig.machine.quiesce([]) == ()


def test_quiesce_steps_over_hlt_as_the_run_does(rig: Rig) -> None:
    rig.code("90 f4 90")
    rig.cpu.rip = CODE + 1
    rig.machine.quiesce([(CODE, CODE + 2)])
    assert rig.cpu.rip == CODE + 2
    assert rig.cpu.halted


def test_stepping_counts_instructions_exactly(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(kind, count_instructions=True)
    rig.code("90" * 6 + "f4")
    rig.cpu.rip = CODE + 1
    rig.machine.quiesce([(CODE, CODE + 4)])
    assert rig.machine.instructions == 3
    assert rig.run() == "poweroff"
    assert rig.machine.instructions == 6


def race(make_rig: Callable[..., Rig], seed: int) -> tuple[str, str]:
    """Four vCPUs update one word without a lock; what comes out depends on every slice."""
    rig = make_rig(MachineKind.X86_64, vcpus=4, seed=seed, slice_blocks=7)
    machine = rig.machine
    # l: mov eax, [edi]; lea eax, [rax+rax*2+ebx]; jmp +0; mov [edi], eax; loop l; call gate; hlt
    rig.code("8b07 8d0458 01d8 eb00 8907 e2f3")
    start = CODE + 13
    rig.memory.write(start, b"\xe8" + (GATES - start - 5).to_bytes(4, "little") + b"\xf4")
    machine.gates.map(GATES, 1)
    rig.memory.write(GATES, machine.gates.text)
    machine.gates.bind(0, lambda vcpu: machine.log.record("done", vcpu.index, word=rig.memory.u32(DATA)))
    for vcpu in machine.vcpus:
        vcpu.set("rdi", DATA)
        vcpu.set("rbx", vcpu.index * 2 + 1)
        vcpu.set("rcx", 300 + vcpu.index)
    snapshot = machine.snapshot()
    assert rig.run(10**8) == "poweroff"
    first = machine.log.sha256
    machine.restore(snapshot)
    assert machine.log.events == ()
    assert rig.run(10**8) == "poweroff"
    return first, machine.log.sha256


def test_a_seed_decides_everything(make_rig: Callable[..., Rig]) -> None:
    hashes = [race(make_rig, seed) for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1]
    assert hashes[0][0] == hashes[0][1], "the run after restore is the run"
    assert hashes[0] != hashes[2]


def test_the_hash_is_the_same_in_every_process() -> None:
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, str(Path(sys.argv[1]).parents[2]));"
        "from tests.machine.conftest import Rig; from tests.machine.test_smp import race;"
        "print(race(Rig, 5)[0])"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program, str(Path(__file__).resolve())],
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in (0, 77)
    }
    assert len(seen) == 1
    assert len(seen.pop().strip()) == 64


def test_a_snapshot_holds_everything(rig: Rig) -> None:
    class Keeper:
        value = 1

        def save(self) -> object:
            return self.value

        def load(self, state: object) -> None:
            assert isinstance(state, int)
            self.value = state

    keeper = Keeper()
    rig.machine.keep(keeper)
    rig.code("ff07 f4")
    rig.cpu.set("rdi", DATA)
    rig.cpu.raise_irq(0x30)
    rig.machine.log.record("before", text="x", data=b"y", number=-1)
    before = rig.machine.log.sha256
    snapshot = rig.machine.snapshot()
    digest = hashlib.sha256(rig.memory.array).hexdigest()
    results = []
    for _ in range(3):
        keeper.value = 2
        assert rig.run() == "poweroff"
        rig.machine.log.record("after")
        results.append((rig.memory.u32(DATA), rig.cpu.rip, rig.machine.clock.ns, rig.machine.log.sha256))
        rig.memory.write(0x200000, b"dirty")
        rig.machine.restore(snapshot)
        assert keeper.value == 1
        assert rig.cpu.pending == [0x30]
        assert not rig.cpu.halted
        assert rig.machine.log.sha256 == before
        assert hashlib.sha256(rig.memory.array).hexdigest() == digest
    assert len(set(results)) == 1


def test_events_that_differ_only_in_where_a_value_ends_hash_differently(make_rig: Callable[..., Rig]) -> None:
    hashes = set()
    for fields in ({"a": "bc"}, {"a": "b", "c": ""}, {"ab": "c"}, {"a": b"bc"}, {"a": 12}, {"a": "12"}):
        rig = make_rig(MachineKind.I386)
        rig.machine.log.record("e", **fields)
        hashes.add(rig.machine.log.sha256)
    assert len(hashes) == 6


def test_snapshots_are_refused_inside_a_handler(rig: Rig) -> None:
    rig.platform.on_exception = lambda *_: bool(rig.machine.snapshot())
    rig.code("0f0b")
    with pytest.raises(MachineError, match="handler"):
        rig.run()
