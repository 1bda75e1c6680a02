"""Who returns into these bytes: the question that every writer of guest text asks.

A vCPU goes on where its instruction pointer is, and later at every return address on its stack: of the call that it
stands in (at an op's gate, that lies inside the call site), and of whatever an interrupt has broken off there. A task
that sleeps goes on at those on its own stack. Whether interrupts are off is nobody's objection here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import attrs
import numpy as np

from pvops_core.errors import MemoryAccessError
from pvops_core.machine import GuestFault
from pvops_core.x86 import PAGE

if TYPE_CHECKING:
    from pvops_core.guest.stacks.spans import Spans, Words
    from pvops_core.machine import Machine, MachineKind, Vcpu

STACK_SIZE = 8192
"""A kernel stack, aligned to its size, where nothing else is known of it."""


@attrs.frozen
class Occupant:
    """Somebody who would go on inside text that is to change.

    Attributes:
        place: guest-virtual address at which it would.
        vcpu: number of the vCPU; None of a task that sleeps.
        task: name of the task, where that is known.
        executes: its instruction pointer is there; else it returns there.
    """

    place: int
    vcpu: int | None = None
    task: str = ""
    executes: bool = False

    def told(self, where: str) -> str:
        """What to say of it, given the place's name."""
        who = f"vcpu {self.vcpu}" if self.vcpu is not None else ""
        who += f" ({self.task})" if who and self.task else self.task
        return f"{who or 'somebody'} {'executes' if self.executes else 'returns into'} {where}"


@attrs.frozen
class TaskStack:
    """The kernel stack of one task.

    Attributes:
        name: the task, for messages.
        start: guest-virtual address of its first byte.
        end: the first address after it.
        vcpu: number of the vCPU that the task is executing on; None for one that sleeps or waits for its turn.
        words: what is on it, as bytes, from where its stack pointer was when it last went to sleep, to the end.
    """

    name: str
    start: int
    end: int
    vcpu: int | None
    words: bytes = attrs.field(default=b"", repr=False)


Tasks = Callable[[], Iterable[TaskStack]]


def no_tasks() -> Sequence[TaskStack]:
    """Of a guest that has no tasks beside what its vCPUs are executing, or of which nothing more is known."""
    return ()


class Returns(Protocol):
    """Knows where everybody of one guest goes on."""

    def inside(self, spans: Spans) -> Sequence[Occupant]:
        """Who goes on inside of spans, while no vCPU runs; one of those of each vCPU and task at most."""

    def where(self, address: int) -> str:
        """A place's name: symbol and offset."""


@runtime_checkable
class KnowsUserMode(Protocol):
    """A platform whose guest's kernel executes at level 3 too, or which knows better for another reason."""

    def in_user_mode(self, vcpu: Vcpu) -> bool:
        """Whether user code is executing (and the kernel's stack is therefore empty)."""


def at_level_3(vcpu: Vcpu) -> bool:
    """User code is executing, where the CPU itself says so."""
    return vcpu.cpl == 3


def user_mode_of(platform: object) -> Callable[[Vcpu], bool]:
    """Whether a vCPU executes user code, on a platform."""
    return platform.in_user_mode if isinstance(platform, KnowsUserMode) else at_level_3


def stack_words(vcpu: Vcpu, stack_size: int) -> Words:
    """The words from a vCPU's stack pointer to its stack's end, as far as they are mapped."""
    kind = vcpu.machine.kind
    # Rounded down: a pointer inside of a word belongs to that word.
    start = vcpu.rsp & -kind.pointer_size
    end = (start - 1 | stack_size - 1) + 1  # a pointer to the very end is an empty stack's
    data = bytearray()
    while start < end:
        # Page by page, for a stack's end may be a guard page.
        stop = min(end, (start | PAGE - 1) + 1)
        try:
            data += vcpu.virtual.read(start, stop - start, system=True)
        except (GuestFault, MemoryAccessError):
            break
        start = stop
    return words_of(bytes(data), kind)


def words_of(data: bytes, kind: MachineKind) -> Words:
    """Bytes as words of a pointer's width."""
    size = kind.pointer_size
    return np.frombuffer(data, dtype=f"<u{size}", count=len(data) // size).astype(np.uint64)


class StackScan:
    """A guest whose stacks are looked through word by word: what looks like a return address is taken for one.

    Interrupts that come while its kernel executes go onto the stack it is on, so nothing lies elsewhere.

    Args:
        machine: its machine.
        stack_size: bytes of each of its kernel stacks, to which they are aligned.
        symbol_at: the symbol at or before an address, and the distance.
        in_user_mode: whether a vCPU executes user code, its kernel stack being empty.
        tasks: those that sleep.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        stack_size: int = STACK_SIZE,
        symbol_at: Callable[[int], tuple[str, int] | None] = lambda _address: None,
        in_user_mode: Callable[[Vcpu], bool] = at_level_3,
        tasks: Tasks = no_tasks,
    ) -> None:
        self._machine = machine
        self._stack_size = stack_size
        self._symbol_at = symbol_at
        self._in_user_mode = in_user_mode
        self._tasks = tasks

    def inside(self, spans: Spans) -> Sequence[Occupant]:
        """Vcpus first, by number, then tasks."""
        found = [of for vcpu in self._machine.vcpus if (of := self.of_vcpu(vcpu, spans)) is not None]
        return found + self.asleep(spans)

    def of_vcpu(self, vcpu: Vcpu, spans: Spans) -> Occupant | None:
        """Where inside a vCPU goes on, if it does."""
        rip = vcpu.rip
        if rip in spans:
            return Occupant(rip, vcpu.index, executes=True)
        if self._in_user_mode(vcpu):
            return None
        words = stack_words(vcpu, self._stack_size)
        # One hit is enough to refuse, and the first is the innermost.
        hits = np.flatnonzero(spans.hits(words))
        return Occupant(int(words[hits[0]]), vcpu.index) if len(hits) else None

    def asleep(self, spans: Spans) -> list[Occupant]:
        """The tasks that sleep and go on inside."""
        found = []
        for task in self._tasks():
            words = words_of(task.words, self._machine.kind)
            hits = np.flatnonzero(spans.hits(words))
            if len(hits):
                found.append(Occupant(int(words[hits[0]]), task=task.name))
        return found

    def where(self, address: int) -> str:
        """As :func:`place_name`."""
        return place_name(self._symbol_at(address), address)


def place_name(symbol: tuple[str, int] | None, address: int) -> str:
    """``symbol+0x12 (0xffffffff…)``, or the address alone."""
    return f"{symbol[0]}+{symbol[1]:#x} ({address:#x})" if symbol else f"{address:#x}"
