"""The loops over all engines say and do what one call for each does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import MachineError
from pvops_core.machine.unicorn.llvm.allengines import COLUMNS, AllEngines, _Slot
from tests.machine.conftest import CODE, Rig

if TYPE_CHECKING:
    from pvops_core.kinds import MachineKind


@pytest.mark.parametrize("vcpus", [1, 3, 72])
def test_it_reads_what_one_vcpu_says_of_itself(kind: MachineKind, make_rig: Callable[..., Rig], vcpus: int) -> None:
    machine = make_rig(kind, vcpus=vcpus).machine
    for vcpu in machine.vcpus:
        vcpu.rip, vcpu.rflags = CODE + vcpu.index, 0x202
    fleet = AllEngines([slot.engine for slot in machine._slots])
    for vcpu, row in zip(machine.vcpus, fleet.look().tolist(), strict=True):
        cr0, cr3, cr4, efer, _, level = vcpu.virtual.key()
        found = dict(zip(COLUMNS, row, strict=True))
        assert (found["cr0"], found["cr3"], found["cr4"], found["efer"]) == (cr0, cr3, cr4, efer)
        assert (found["rip"], found["cs"] & 3, found["eflags"]) == (CODE + vcpu.index, level, vcpu.rflags)


def test_every_engine_forgets_its_code(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(kind, vcpus=3)
    rig.code("b801000000 ebfe")
    for vcpu in rig.machine.vcpus:
        vcpu.rip = CODE
    rig.machine.run(max_ns=500_000)
    rig.memory.write(CODE, bytes.fromhex("b802000000"))
    AllEngines([slot.engine for slot in rig.machine._slots]).drop(CODE, CODE + 5)
    for vcpu in rig.machine.vcpus:
        vcpu.rip = CODE
    rig.machine.run(max_ns=500_000)
    assert [vcpu.get("eax") for vcpu in rig.machine.vcpus] == [2, 2, 2]


def test_what_an_engine_refuses_is_an_error(kind: MachineKind, make_rig: Callable[..., Rig]) -> None:
    machine = make_rig(kind, vcpus=2).machine
    fleet = AllEngines([slot.engine for slot in machine._slots])
    fleet._words[_Slot.FAILED] = 15
    with pytest.raises(MachineError, match="register read failed: arg"):
        fleet.look()
    fleet.look()
