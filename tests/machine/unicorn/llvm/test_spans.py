"""Counting spans of guest text: every execution, whatever ends blocks and slices, and the time of calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import MachineError
from pvops_core.machine import MachineKind
from tests.machine.conftest import CODE, DATA

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.machine.conftest import Rig

# l: nop; inc dword [edi]; call f; nop; nop; jmp l;  f: times 3 { jmp next }; ret
LOOP = "90 ff07 e804000000 90 90 ebf4 eb00 eb00 eb00 c3"
INC, CALL, BEHIND = (CODE + 1, 2), (CODE + 3, 6), (CODE + 9, 1)


def looping(make_rig: Callable[..., Rig], kind: MachineKind, vcpus: int, **options: int) -> Rig:
    rig = make_rig(kind, vcpus=vcpus, **options)
    rig.code_for_each(LOOP)
    return rig


@pytest.mark.parametrize("slice_blocks", [3, 50, 1_000])
def test_every_execution_is_counted_once(kind: MachineKind, make_rig: Callable[..., Rig], slice_blocks: int) -> None:
    rig = looping(make_rig, kind, 2, slice_blocks=slice_blocks)
    counter = rig.machine.count_spans([CALL, INC, BEHIND])
    rig.run(100_000)
    done = rig.memory.u32(DATA) + rig.memory.u32(DATA + 4)
    call, inc, behind = counter.counts
    assert done > 1_000
    assert inc == done
    assert 0 <= inc - call <= 2
    assert 0 <= call - behind <= 2
    in_calls, inlined, _ = counter.times
    assert inlined == 0
    # The call is two runs of straight code: the function, whose jumps lead to the next instruction, and the way back.
    assert behind * 10 <= in_calls
    assert in_calls <= 100_000 * 2


def test_the_time_of_a_call_is_that_of_its_code(make_rig: Callable[..., Rig]) -> None:
    rig = looping(make_rig, MachineKind.X86_64, 1)
    counter = rig.machine.count_spans([CALL, BEHIND])
    rig.run(100_000)
    calls, back = counter.counts
    assert abs(counter.times[0] - 2 * 5 * calls) <= 25
    assert calls - back in {0, 1}


def test_a_faulting_block_counts_what_was_executed(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(MachineKind.X86_64)
    rig.code("90 ff07 90 f4")
    rig.cpu.set("rdi", 0x3000000)  # not mapped
    counter = rig.machine.count_spans([(CODE, 1), (CODE + 1, 2), (CODE + 3, 1)])

    def mend(vcpu: object, vector: int) -> bool:
        assert vector == 14
        counter.interrupted(rig.cpu, rig.cpu.rip)
        rig.cpu.set("rdi", DATA)
        return vcpu is rig.cpu

    rig.platform.on_exception = mend
    assert rig.run() == "poweroff"
    assert counter.counts == [1, 1, 1]


def test_nothing_is_counted_after_the_end(make_rig: Callable[..., Rig]) -> None:
    rig = looping(make_rig, MachineKind.X86_64, 1)
    counter = rig.machine.count_spans([INC])
    rig.run(1_000)
    counter.close()
    before = counter.counts
    rig.run(1_000)
    assert counter.counts == before != [0]
    other = rig.machine.count_spans([INC])
    rig.run(1_000)
    assert other.counts > [0]


def test_spans_that_make_no_sense_are_refused(make_rig: Callable[..., Rig]) -> None:
    machine = make_rig(MachineKind.X86_64).machine
    with pytest.raises(MachineError, match="no spans"):
        machine.count_spans([])
    with pytest.raises(MachineError, match="overlap"):
        machine.count_spans([(CODE, 4), (CODE + 3, 4)])
