"""What is done to a machine is undone: memory, registers, and who keeps state with it."""

from __future__ import annotations

import pytest

from pvops_core.kinds import MachineKind
from pvops_core.machine import Machine
from pvops_core.machine.run.written import written_pages

SIZE = 4 << 20


class Keeper:
    value = 0

    def save(self) -> int:
        return self.value

    def load(self, state: int) -> None:
        self.value = state


@pytest.fixture
def machine() -> Machine:
    return Machine(MachineKind.X86_64, memory=SIZE)


def test_all_comes_back_and_what_was_written_is_known(machine: Machine) -> None:
    memory, keeper = machine.memory, Keeper()
    machine.keep(keeper)
    memory.write(0x5000, b"before")
    for _ in range(3):
        with machine.undone() as before:
            memory.set_u8(0x5000, 1)
            memory.write(0x9FFF, b"xy")
            machine.vcpus[0].rip, keeper.value = 0x1234, 7
            machine.counts["exceptions"] += 1
            assert written_pages(memory, before) == [0x5000, 0x9000, 0xA000]
            assert before.read(0x5000, 6) == b"before"
        assert memory.read(0x5000, 6) == b"before"
        assert memory.read(0x9FFF, 2) == bytes(2)
        assert (machine.vcpus[0].rip, keeper.value, machine.counts["exceptions"]) == (0, 0, 0)


def test_what_is_done_between_stays(machine: Machine) -> None:
    with machine.undone():
        machine.memory.set_u8(0x1000, 1)
    machine.memory.set_u8(0x2000, 2)
    with machine.undone() as before:
        assert (machine.memory.u8(0x1000), machine.memory.u8(0x2000)) == (0, 2)
        assert before.read(0x2000, 1) == b"\x02"
    assert machine.memory.u8(0x2000) == 2


def test_one_in_another_is_undone_first(machine: Machine) -> None:
    memory = machine.memory
    with machine.undone():
        memory.set_u8(0x1000, 1)
        with machine.undone() as inner:
            memory.set_u8(0x1000, 2)
            memory.set_u8(0x3000, 2)
            assert written_pages(memory, inner) == [0x1000, 0x3000]
        assert (memory.u8(0x1000), memory.u8(0x3000)) == (1, 0)
    assert memory.u8(0x1000) == 0


def test_an_error_undoes_all_too(machine: Machine) -> None:
    def failing() -> None:
        with machine.undone():
            machine.memory.set_u8(0x1000, 1)
            machine.vcpus[0].rip = 5
            raise LookupError

    with pytest.raises(LookupError):
        failing()
    assert (machine.memory.u8(0x1000), machine.vcpus[0].rip) == (0, 0)


def test_snapshots_go_on_beside_it(machine: Machine) -> None:
    memory = machine.memory
    memory.set_u8(0x1000, 1)
    snapshot = machine.snapshot()
    with machine.undone():
        memory.set_u8(0x1000, 2)
        machine.restore(snapshot)
        assert memory.u8(0x1000) == 1
    memory.set_u8(0x1000, 3)
    later = machine.snapshot()
    machine.restore(snapshot)
    assert memory.u8(0x1000) == 1
    with machine.undone():
        memory.set_u8(0x1000, 4)
    assert memory.u8(0x1000) == 1
    machine.restore(later)
    assert memory.u8(0x1000) == 3
