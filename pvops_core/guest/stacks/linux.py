"""Where everybody in a booted Linux goes on.

Most questions are answered by words that do not occur: nothing on a task's own stack looks like an address inside. Only
where something does, or where a vCPU is on a stack for interrupts, frames are walked by ORC. Where that does not lead
to the end, or nothing is known of the tasks, whatever looks like a return address is taken for one: on the task's
stack, or in all of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from pvops_core.errors import ImageError, MemoryAccessError
from pvops_core.guest.stacks.orc import Orc, read_orc
from pvops_core.guest.stacks.returns import STACK_SIZE, Occupant, TaskStack, place_name, stack_words, words_of
from pvops_core.guest.stacks.search import found_in
from pvops_core.guest.stacks.unwind import Frame, Walked, walk
from pvops_core.machine import GuestFault

if TYPE_CHECKING:
    from pvops_core.guest.stacks.spans import Spans, Words
    from pvops_core.images import KernelImage
    from pvops_core.machine import Machine, Vcpu

INACTIVE: Final = {"bp": 40, "ret_addr": 48}
"""Offsets in struct inactive_task_frame of x86_64 (asm/switch_to.h), at the stack pointer of a task that sleeps."""
_NAMES: Final = {"bp": "rbp", "ax": "rax", "dx": "rdx", "di": "rdi", "r10": "r10", "r13": "r13"}
_PAGING: Final = 1 << 31
_WORD: Final = 8


class LinuxReturns:
    """Knows where everybody goes on in one session's kernel.

    Args:
        machine: its machine.
        image: the kernel.
        in_user_mode: whether a vCPU executes user code, its task's kernel stack being empty.
        find_tasks: finds what gives all tasks' stacks as they are now, or None; asked once, when that is first needed.
        word: a word of the kernel's memory, whatever address spaces its vCPUs are in; GuestFault where it has none.
        called: whether a place is a hook's entry, to which calls lead though the tables do not know it.
    """

    def __init__(
        self,
        machine: Machine,
        image: KernelImage,
        *,
        in_user_mode: Callable[[Vcpu], bool],
        find_tasks: Callable[[], Callable[[], Sequence[TaskStack]] | None],
        word: Callable[[int], int],
        called: Callable[[int], bool] = lambda _address: False,
    ) -> None:
        self._machine = machine
        self._image = image
        self._in_user_mode = in_user_mode
        self._find_tasks = find_tasks
        self._word = word
        self.called = called

    # Late: the tables of ORC are large, and few kernels are asked.
    @cached_property
    def _orc(self) -> Orc | None:
        return read_orc(self._image)

    @cached_property
    def _tasks(self) -> Callable[[], Sequence[TaskStack]] | None:
        return self._find_tasks()

    def where(self, address: int) -> str:
        """Symbol and offset."""
        try:
            return place_name(self._image.symbol_at(address), address)
        except ImageError:  # its symbols are damaged
            return place_name(None, address)

    def inside(self, spans: Spans) -> Sequence[Occupant]:
        """Vcpus first, by number, then tasks."""
        if self._tasks is None:
            return self._anybody(spans)
        tasks = self._tasks()
        # Of a task that executes, the vCPU knows better where it is.
        executing = {task.vcpu: task for task in tasks if task.vcpu is not None}
        found = [self._of_vcpu(vcpu, spans, executing.get(vcpu.index)) for vcpu in self._machine.vcpus]
        found += [self._of_task(task, spans) for task in tasks if task.vcpu is None]
        return [each for each in found if each is not None]

    # Of a vCPU -------------------------------------------------------------------------------------------------------

    def _of_vcpu(self, vcpu: Vcpu, spans: Spans, task: TaskStack | None) -> Occupant | None:
        name, rip, rsp = task.name if task else "", vcpu.rip, vcpu.rsp
        if rip in spans:
            return Occupant(rip, vcpu.index, name, executes=True)
        # Before paging there is no kernel's stack to speak of.
        if self._in_user_mode(vcpu) or not vcpu.cr0 & _PAGING:
            return None
        # On its own stack: then the words there are all that there is.
        if task is not None and task.start <= rsp <= task.end:
            # Nothing that looks like an address inside, so no walk is needed.
            seen = _hit(spans, self._words(vcpu, rsp, task.end))
            if seen is None:
                return None
            place = self._place(self._walk_vcpu(vcpu), spans)
            # If nobody can tell, what was seen counts: to refuse is safe.
            place = seen if place is None else place
            return Occupant(place, vcpu.index, name) if place else None
        return self._elsewhere(vcpu, spans, task)

    def _elsewhere(self, vcpu: Vcpu, spans: Spans, task: TaskStack | None) -> Occupant | None:
        """A vCPU on a stack for interrupts, or that is just going from one task to another."""
        if not len(self._words(vcpu, vcpu.rsp, vcpu.rsp + _WORD)):
            return None  # it has no stack: it has not been started
        walked = self._walk_vcpu(vcpu)
        place = self._place(walked, spans)
        if place is None:
            # Without frames all of memory is asked.
            place = found_in(self._machine.memory, self._machine.kind, spans.of_returns())
        if place:
            return Occupant(place, vcpu.index, task.name if task else "")
        # A walk that came back to the task's own stack has seen everything of it.
        came_home = walked is not None and task is not None and task.start <= walked.sp <= task.end
        return self._of_task(task, spans) if task is not None and not came_home else None

    def _walk_vcpu(self, vcpu: Vcpu) -> Walked | None:
        if self._orc is None:
            return None
        registers = vcpu.rip, vcpu.rsp, vcpu.get("rbp")
        frame = Frame(*registers, exact=True, registers=lambda name: vcpu.get(_NAMES[name]))
        return walk(self._orc, frame, lambda at: vcpu.virtual.number(at, _WORD, system=True), self.called)

    def _words(self, vcpu: Vcpu, start: int, end: int) -> Words:
        try:
            data = vcpu.virtual.read(start, end - start, system=True)
        except (GuestFault, MemoryAccessError):
            data = b""
        return words_of(data, self._machine.kind)

    @staticmethod
    def _place(walked: Walked | None, spans: Spans) -> int | None:
        """A place inside at which one of a stack's frames goes on; 0 if none does, None if nobody can tell."""
        if walked is None:
            return None
        hit = _hit(spans, np.array(walked.places, dtype=np.uint64))
        return hit if hit is not None or walked.lost else 0

    # Of a task that sleeps -------------------------------------------------------------------------------------------

    def _of_task(self, task: TaskStack, spans: Spans) -> Occupant | None:
        seen = _hit(spans, words_of(task.words, self._machine.kind))
        if seen is None:
            return None
        place = self._place(self._walk_task(task), spans)
        place = seen if place is None else place
        return Occupant(place, task=task.name) if place else None

    def _walk_task(self, task: TaskStack) -> Walked | None:
        pointer = task.end - len(task.words)
        if self._orc is None:
            return None
        try:
            bp, ip = (self._word(pointer + INACTIVE[name]) for name in ("bp", "ret_addr"))
        except GuestFault:
            return None
        forked = self._image.symbol_at(ip)
        stack = pointer + INACTIVE["ret_addr"] + _WORD
        # Its first return is into ret_from_fork, of which ORC knows nothing.
        if forked is not None and forked[0].startswith("ret_from_fork") and not forked[1]:
            return Walked((ip,), stack, lost=False)  # it has not begun
        return walk(self._orc, Frame(ip, stack, bp, exact=False), self._word, self.called)

    # Without any tasks -----------------------------------------------------------------------------------------------

    def _anybody(self, spans: Spans) -> Sequence[Occupant]:
        found = [self._seen(vcpu, spans) for vcpu in self._machine.vcpus]
        # Of those who are seen the rest of memory need not be asked.
        if any(found):
            return [each for each in found if each is not None]
        place = found_in(self._machine.memory, self._machine.kind, spans.of_returns())
        return [Occupant(place)] if place is not None else []

    def _seen(self, vcpu: Vcpu, spans: Spans) -> Occupant | None:
        """What a vCPU alone shows; of it and of all else that returns, memory shows the rest."""
        rip = vcpu.rip
        if rip in spans:
            return Occupant(rip, vcpu.index, executes=True)
        place = None if self._in_user_mode(vcpu) else _hit(spans, stack_words(vcpu, STACK_SIZE))
        return Occupant(place, vcpu.index) if place is not None else None


def _hit(spans: Spans, words: Words) -> int | None:
    hits = np.flatnonzero(spans.hits(words))
    return int(words[hits[0]]) if len(hits) else None
