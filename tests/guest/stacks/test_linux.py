"""Who returns where in a kernel, by its tasks, its ORC tables, or all of its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pvops_core.guest.stacks.linux import INACTIVE, LinuxReturns
from pvops_core.guest.stacks.orc import Base, Orc, OrcKind
from pvops_core.guest.stacks.returns import Occupant, TaskStack
from tests.guest.stacks.frames import ENTRY, bits
from tests.machine.conftest import CODE, Rig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pvops_core.machine import Vcpu
from tests.guest.stacks.places import ASLEEP, END, OTHER, RETURN, SITE, SPANS, STACK


class Image:
    """What is asked of an image."""

    pointer_size = 8

    def section(self, _name: str) -> None:
        return None

    def symbol_at(self, address: int) -> tuple[str, int]:
        return "code", address - CODE


def returns(
    rig: Rig, tasks: Sequence[TaskStack] | None, orc: Orc | None = None, user: Sequence[int] = ()
) -> LinuxReturns:
    def in_user_mode(vcpu: Vcpu) -> bool:
        return vcpu.index in user

    image: Any = Image()
    made = LinuxReturns(
        rig.machine,
        image,
        in_user_mode=in_user_mode,
        find_tasks=lambda: None if tasks is None else lambda: tasks,
        word=rig.memory.u64,
    )
    vars(made)["_orc"] = orc
    return made


def task(rig: Rig, number: int, start: int, vcpu: int | None, pointer: int) -> TaskStack:
    words = rig.memory.read(pointer, start + 0x4000 - pointer)
    return TaskStack(f"task {number} (t{number})", start, start + 0x4000, vcpu, words)


def at_home(rig: Rig) -> list[TaskStack]:
    return [task(rig, 1, STACK, 0, END - 0x100), task(rig, 2, STACK - 0x4000, 1, STACK - 0x100)]


def leaf() -> Orc:
    """All text pushes nothing; what the first instruction is returned to begins a task."""
    rows = [(0, 0, bits(Base.UNDEFINED, Base.UNDEFINED, OrcKind.END, header=True))]
    rows += [(8, 0, bits(Base.SP, Base.UNDEFINED, OrcKind.CALL, header=True))]
    return Orc(np.array([CODE - 0x1000, CODE], dtype=np.uint64), np.array(rows, dtype=ENTRY), header=True)


def test_nobody_is_inside_where_no_word_says_so(rig: Rig) -> None:
    rig.memory.set_u64(END - 0x200, RETURN)  # below the stack pointer: long gone
    assert not returns(rig, at_home(rig)).inside(SPANS)


def test_a_vcpu_on_its_task_s_stack_is_named_with_it(rig: Rig) -> None:
    rig.memory.set_u64(END - 0x80, RETURN)
    found = returns(rig, at_home(rig))
    assert found.inside(SPANS) == [Occupant(RETURN, 0, "task 1 (t1)")]
    assert found.where(RETURN) == f"code+0x85 ({RETURN:#x})"
    assert not returns(rig, at_home(rig), user=(0,)).inside(SPANS)


def test_who_executes_inside_is_inside_in_user_mode_too(rig: Rig) -> None:
    rig.machine.vcpus[1].rip = SITE + 1
    assert returns(rig, at_home(rig), user=(0, 1)).inside(SPANS) == [
        Occupant(SITE + 1, 1, "task 2 (t2)", executes=True)
    ]


def test_words_that_no_frame_has_are_no_return_addresses(rig: Rig) -> None:
    rig.memory.set_u64(END - 0x80, RETURN)
    rig.memory.set_u64(END - 0x100, CODE - 0x800)
    assert not returns(rig, at_home(rig), leaf()).inside(SPANS)
    rig.memory.set_u64(END - 0x100, RETURN)
    rig.memory.set_u64(END - 0xF8, CODE - 0x800)
    assert returns(rig, at_home(rig), leaf()).inside(SPANS) == [Occupant(RETURN, 0, "task 1 (t1)")]


def test_where_the_walk_is_lost_every_word_counts(rig: Rig) -> None:
    rig.memory.set_u64(END - 0x80, RETURN)
    rig.memory.set_u64(END - 0x100, 0x1234)  # no text
    assert [each.place for each in returns(rig, at_home(rig), leaf()).inside(SPANS)] == [RETURN]


def asleep(rig: Rig, *words: int) -> TaskStack:
    pointer = ASLEEP + 0x3000
    for number, word in enumerate(words):
        rig.memory.set_u64(pointer + INACTIVE["ret_addr"] + 8 * number, word)
    return task(rig, 7, ASLEEP, None, pointer)


def test_a_task_that_sleeps_is_asked_as_well(rig: Rig) -> None:
    there = [*at_home(rig), asleep(rig, CODE + 8, 0, RETURN)]
    assert returns(rig, there).inside(SPANS) == [Occupant(RETURN, task="task 7 (t7)")]
    assert not returns(rig, [*at_home(rig), asleep(rig, CODE + 8, CODE - 0x800, RETURN)], leaf()).inside(SPANS)
    walked = returns(rig, [*at_home(rig), asleep(rig, CODE + 8, RETURN, CODE - 0x800)], leaf()).inside(SPANS)
    assert walked == [Occupant(RETURN, task="task 7 (t7)")]


def test_a_vcpu_elsewhere_is_walked_and_without_tables_all_memory_is_searched(rig: Rig) -> None:
    there = at_home(rig)
    rig.machine.vcpus[0].rsp = OTHER
    rig.memory.set_u64(OTHER, CODE - 0x800)
    assert not returns(rig, there, leaf()).inside(SPANS)
    rig.memory.set_u64(0x70008, RETURN)
    assert not returns(rig, there, leaf()).inside(SPANS)
    assert returns(rig, there).inside(SPANS) == [Occupant(RETURN, 0, "task 1 (t1)")]


def test_a_task_that_is_just_being_gone_to_still_sleeps(rig: Rig) -> None:
    """Its vCPU is on the stack of the one before; what the walk of that ends with is not the task's stack."""
    next_one = asleep(rig, CODE + 8, RETURN, CODE - 0x800)
    there = [TaskStack(next_one.name, next_one.start, next_one.end, 0, next_one.words), at_home(rig)[1]]
    rig.memory.set_u64(END - 0x100, CODE - 0x800)
    assert returns(rig, there, leaf()).inside(SPANS) == [Occupant(RETURN, task="task 7 (t7)")]


def test_one_that_has_not_been_started_has_no_stack(rig: Rig) -> None:
    rig.machine.vcpus[1].rsp = 0x123456789000
    rig.memory.set_u64(0x70008, RETURN)
    assert not returns(rig, at_home(rig)[:1]).inside(SPANS)


def test_without_tasks_all_memory_is_searched(rig: Rig) -> None:
    found = returns(rig, None)
    assert not found.inside(SPANS)
    rig.memory.set_u64(0x70008, RETURN)
    assert found.inside(SPANS) == [Occupant(RETURN)]
    rig.memory.set_u64(END - 0x80, RETURN)
    assert found.inside(SPANS) == [Occupant(RETURN, 0)]
    rig.machine.vcpus[1].rip = SITE + 1
    assert Occupant(SITE + 1, 1, executes=True) in found.inside(SPANS)
