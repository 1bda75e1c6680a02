"""Tasks that sleep, and interrupts on stacks of their own: what the vCPUs alone do not show."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pvops_core.guest.stacks.returns import TaskStack
from pvops_core.livepatch.payload.model import Command, State
from tests.livepatch.conftest import MINOR, NEW, PLAIN, STACKS, VERSION, Make, Patched

if TYPE_CHECKING:
    from pvops_core.kinds import MachineKind

ASLEEP = 0x70000


def sleeper(kind: MachineKind, *words: int) -> TaskStack:
    data = b"".join(word.to_bytes(kind.pointer_size, "little") for word in words)
    return TaskStack("task 7 (sleeper)", ASLEEP, ASLEEP + 0x400, None, data)


def refused(made: Patched, name: str = "hello", command: Command = Command.APPLY) -> str:
    """An action that is too late, and what is said of it."""
    text = made.code()
    made.registry.action(name, command, timeout_ns=500_000)
    made.run(700_000)
    assert made.registry.get(name).rc == -errno.EBUSY
    assert made.code() == text
    assert not any(vcpu.held for vcpu in made.machine.vcpus)
    return next(message for message in reversed(made.livepatch.messages) if "Timed out" in message)


def test_a_task_that_sleeps_in_the_function_hinders_it(kind: MachineKind, patched: Make) -> None:
    stacks = [sleeper(kind, 1, VERSION + 5, 2)]
    made = patched(kind, 2, tasks=lambda: stacks)
    made.upload("hello")
    assert "task 7 (sleeper) sleeps in version" in refused(made)
    assert made.stored() == {PLAIN}
    stacks[:] = [sleeper(kind, 1, VERSION, MINOR + 3)]  # one about to enter it finds what is there then
    assert made.act("hello", Command.APPLY) == 0
    assert made.stored() == {NEW}


def test_one_that_wakes_in_time_lets_it_go_on(patched: Make) -> None:
    """Everybody runs meanwhile, and the one deadline holds."""
    made = patched(
        vcpus=3, tasks=lambda: [sleeper(made.machine.kind, VERSION + 5)] if made.machine.clock.ns < awake else []
    )
    made.run()
    awake = made.machine.clock.ns + 250_000
    made.upload("hello")
    made.registry.action("hello", Command.APPLY)
    made.run(240_000)
    assert made.registry.get("hello").rc == -errno.EAGAIN
    assert made.stored() == {PLAIN}
    made.run(200_000)
    assert made.registry.get("hello").rc == 0
    assert made.stored() == {NEW}


def test_a_payload_does_not_go_while_a_task_sleeps_in_it(patched: Make) -> None:
    stacks: list[TaskStack] = []
    made = patched(tasks=lambda: stacks)
    made.upload("hello")
    assert made.act("hello", Command.APPLY) == 0
    new = made.registry.record("hello").payload.functions[0].new_address
    stacks.append(sleeper(made.machine.kind, new + 2))
    assert "task 7 (sleeper) sleeps in payload hello" in refused(made, command=Command.REVERT)
    assert made.registry.get("hello").state is State.APPLIED


def test_a_vcpu_on_another_stack_than_its_task_s_is_not_in(patched: Make) -> None:
    """What it interrupted is on a stack that cannot be seen from there."""
    elsewhere = TaskStack("task 1 (init)", ASLEEP, ASLEEP + 0x400, 1)
    stacks = [TaskStack("task 9 (idle)", STACKS, STACKS + 0x400, 0), elsewhere]
    made = patched(vcpus=2, tasks=lambda: stacks)
    made.upload("hello")
    assert "vcpu 1 is on a stack that is not that of task 1 (init)" in refused(made)
    stacks[1] = TaskStack("task 1 (init)", STACKS + 0x400, STACKS + 0x800, 1)
    assert made.act("hello", Command.APPLY) == 0


def test_a_hindrance_is_part_of_snapshots(patched: Make) -> None:
    stacks = [sleeper(patched().machine.kind, VERSION + 5)]
    made = patched(vcpus=2, tasks=lambda: stacks)
    made.upload("hello")
    made.registry.action("hello", Command.APPLY)
    made.run(20_000)
    snapshot = made.machine.snapshot()
    stacks.clear()
    ends = set()
    for _ in range(2):
        made.machine.restore(snapshot)
        made.run(150_000)
        assert made.registry.get("hello").rc == 0
        ends.add(made.machine.log.sha256)
    assert len(ends) == 1
