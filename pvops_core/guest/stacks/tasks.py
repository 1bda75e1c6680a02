"""The kernel stacks of Linux's tasks, found by the kernel's own type information.

Source: include/linux/sched.h (task_struct), sched/signal.h (signal_struct), kernel/sched/sched.h (rq). Threads hang in
``signal->thread_head`` since 6.7 and before; every leader is in the list that begins at ``init_task``. A CPU's idle
task stands in its run queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import ImageError
from pvops_core.guest.stacks.returns import TaskStack, no_tasks
from pvops_core.machine import GuestFault

if TYPE_CHECKING:
    from pvops_core.guest.space import KernelSpace
    from pvops_core.images import KernelImage
    from pvops_core.machine import Machine

_MEMBERS: Final = {
    "task_struct": ("stack", "tasks.next", "thread_node.next", "thread.sp", "signal", "comm", "pid"),
    "signal_struct": ("thread_head.next",),
    "rq": ("idle",),
}
_CURRENT: Final = ("current_task", "pcpu_hot")
"""What each CPU executes, by the first word of a per-CPU symbol: from 6.2 to 6.14 the second (asm/current.h)."""
_SYMBOLS: Final = ("init_task", "runqueues", "__per_cpu_offset")
_STACKS: Final = (("__start_init_stack", "__end_init_stack"), ("__start_init_task", "__end_init_task"))
"""Around the first task's stack: since 6.10, and before."""
# A damaged list may go round for ever.
_TASK_LIMIT: Final = 100_000
_COMM: Final = 16


@attrs.frozen
class TaskLayout:
    """Where things are in a kernel: member offsets in bytes by structure and path, and symbols."""

    members: dict[str, dict[str, int]]
    symbols: dict[str, int]

    @property
    def stack_size(self) -> int:
        """THREAD_SIZE: what the linker script leaves for the first task's stack."""
        start, end = next(pair for pair in _STACKS if pair[1] in self.symbols)
        return self.symbols[end] - self.symbols[start]


def read_linux(image: KernelImage) -> TaskLayout | None:
    """What a kernel says of its tasks; None for one without type information, or that is no Linux."""
    btf = image.types
    symbols = image.symbols
    stack = next((pair for pair in _STACKS if pair[0] in symbols and pair[1] in symbols), None)
    current = next((name for name in _CURRENT if name in symbols), None)
    if btf is None or stack is None or current is None or any(name not in symbols for name in _SYMBOLS):
        return None
    members = {}
    for structure, wanted in _MEMBERS.items():
        offsets = {leaf.path: leaf.offset // 8 for leaf in btf.leaves(structure) or ()}
        if any(path not in offsets for path in wanted):
            return None
        members[structure] = {path: offsets[path] for path in wanted}
    return TaskLayout(members, {name: symbols[name] for name in (*_SYMBOLS, *stack, current)})


class Tasks:
    """The tasks of a booted Linux."""

    def __init__(self, machine: Machine, space: KernelSpace, linux: TaskLayout) -> None:
        self._linux = linux
        self._space = space
        self._vcpus = len(machine.vcpus)
        self._word = machine.kind.pointer_size
        self._current = next(name for name in _CURRENT if name in linux.symbols)

    def __call__(self) -> Sequence[TaskStack]:
        """All stacks. Only while every vCPU is held.

        A list that cannot be followed, being changed or not made yet, ends where that shows.
        """
        executing: dict[int, int] = {}
        seen: dict[int, None] = {}
        for vcpu in range(self._vcpus):
            # Idle tasks hang in no list.
            try:
                seen[self._member("rq", self._of_cpu("runqueues", vcpu), "idle")] = None
                current = self._space.word(self._of_cpu(self._current, vcpu))
            except GuestFault:
                continue  # it has no memory of its own yet
            executing[current] = vcpu
            seen[current] = None
        # In order of discovery, each once.
        for task in self._all():
            seen[task] = None
        found = (self._stack(task, executing.get(task)) for task in seen if task)
        return tuple(each for each in found if each is not None)

    def _member(self, structure: str, at: int, path: str) -> int:
        return self._space.word(at + self._linux.members[structure][path])

    def _of_cpu(self, symbol: str, vcpu: int) -> int:
        """Where a CPU has its own of a per-CPU symbol."""
        symbols = self._linux.symbols
        offset = self._space.word(symbols["__per_cpu_offset"] + vcpu * self._word)
        # Per-CPU symbols are offsets, or addresses from which one is taken: the sum wraps.
        return symbols[symbol] + offset & (1 << 8 * self._word) - 1

    def _all(self) -> Iterator[int]:
        """Every leader, and the threads of each."""
        members = self._linux.members["task_struct"]
        # Leaders hang by tasks, threads by thread_node in their signal_struct.
        for leader in self._list(self._linux.symbols["init_task"], members["tasks.next"]):
            yield leader
            try:
                head = self._member("task_struct", leader, "signal")
            except GuestFault:
                continue
            if head:
                yield from self._threads(head + self._linux.members["signal_struct"]["thread_head.next"])

    def _threads(self, head: int) -> Iterator[int]:
        offset = self._linux.members["task_struct"]["thread_node.next"]
        for number, node in enumerate(self._nodes(head)):
            if node == head or number > _TASK_LIMIT:
                return
            yield node - offset

    def _list(self, first: int, offset: int) -> Iterator[int]:
        yield first
        for number, node in enumerate(self._nodes(first + offset)):
            if node == first + offset or number > _TASK_LIMIT:
                return
            yield node - offset

    def _nodes(self, head: int) -> Iterator[int]:
        node = head
        while True:
            try:
                node = self._space.word(node)
            except GuestFault:
                return
            if not node:
                return
            yield node

    def _stack(self, task: int, vcpu: int | None) -> TaskStack | None:
        members, space = self._linux.members["task_struct"], self._space
        try:
            start = space.word(task + members["stack"])
            comm = space.read(task + members["comm"], _COMM).partition(b"\0")[0]
            pid = int.from_bytes(space.read(task + members["pid"], 4), "little")
            if not start:  # it has ended, and its stack is gone
                return None
            end = start + self._linux.stack_size
            name = f"task {pid} ({comm.decode('utf-8', 'replace')})"
            # Where it was switched away (thread.sp); of one that executes it is of old.
            pointer = space.word(task + members["thread.sp"])
            words = space.read(pointer, end - pointer) if start <= pointer < end else b""
            return TaskStack(name, start, end, vcpu, words)
        except GuestFault:
            return None


def tasks_of(
    image: KernelImage, machine: Machine, space: KernelSpace
) -> tuple[Callable[[], Sequence[TaskStack]], int | None]:
    """What gives the tasks of a kernel, and the size of their stacks, as far as the kernel says."""
    linux = read_linux(image)
    if linux is None:
        return no_tasks, None
    return Tasks(machine, space, linux), linux.stack_size


def find_tasks(image: KernelImage, machine: Machine, space: KernelSpace) -> Callable[[], Sequence[TaskStack]] | None:
    """What gives the tasks of a kernel; None where its symbols or types are damaged or do not say."""
    try:
        linux = read_linux(image)
    except ImageError:
        return None
    return Tasks(machine, space, linux) if linux is not None else None
