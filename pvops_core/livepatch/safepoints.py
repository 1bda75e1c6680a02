"""Where a vCPU may be stopped so that text can change under it.

Xen stops its CPUs on the way back to a guest, where the stack is empty. A guest's kernel has no such place for an
outsider, so this is the same asked of each vCPU: it would take an interrupt now, and neither its instruction pointer
nor any word on its kernel stack lies in a function concerned. Words that merely look like return addresses keep a
vCPU away for a while; they cannot make one safe that is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np

from pvops_core.machine import GuestFault

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pvops_core.guest.returns import TaskStack
    from pvops_core.livepatch.guest import PatchedGuest
    from pvops_core.machine import Vcpu

    Words = NDArray[np.uint64]

_PAGE = 0x1000


@attrs.frozen
class Span:
    """Text that is concerned: ``[start, end)``, and what it is called."""

    start: int
    end: int
    name: str


class SafePoints:
    """Looks at vCPUs for one action.

    Args:
        guest: the guest.
        spans: the functions concerned.
    """

    def __init__(self, guest: PatchedGuest, spans: Sequence[Span]) -> None:
        self._guest = guest
        self._spans = sorted(spans, key=lambda span: span.start)

    def offline(self, vcpu: Vcpu) -> bool:
        """Whether a vCPU executes nothing and takes no interrupts: not started yet, or parked for good."""
        return vcpu.halted and not self._guest.calls.interruptible(vcpu)

    def objection(self, vcpu: Vcpu) -> str:
        """Why a vCPU cannot be stopped here; empty if it can."""
        if not self._guest.calls.interruptible(vcpu):
            return "interrupts are off"
        if self._guest.calls.in_user_mode(vcpu):
            return ""
        inside = self._span_of(vcpu.rip)
        if inside is not None:
            return f"executes {inside.name}"
        return self._on_stack(vcpu)

    def objection_of_tasks(self) -> str:
        """Why no vCPU may go on in new text, all being held: a task that sleeps in a function, or one interrupted.

        A vCPU that is not on its task's stack serves an interrupt on a stack of its own, and what it has interrupted
        cannot be seen.
        """
        for task in self._guest.tasks():
            if task.vcpu is None:
                span = self._returned_into(self._words(task.words))
                if span is not None:
                    return f"{task.name} sleeps in {span.name}"
            elif self._elsewhere(self._guest.machine.vcpus[task.vcpu], task):
                return f"vcpu {task.vcpu} is on a stack that is not that of {task.name}"
        return ""

    def _elsewhere(self, vcpu: Vcpu, task: TaskStack) -> bool:
        if self.offline(vcpu) or self._guest.calls.in_user_mode(vcpu):
            return False
        return not task.start <= vcpu.rsp <= task.end

    def _span_of(self, address: int) -> Span | None:
        return next((span for span in self._spans if span.start <= address < span.end), None)

    def _on_stack(self, vcpu: Vcpu) -> str:
        """A function that the vCPU may return into."""
        span = self._returned_into(self._stack(vcpu))
        return f"may return into {span.name}" if span is not None else ""

    def _returned_into(self, words: Words) -> Span | None:
        # A return address lies behind a call, never at a function's first byte.
        return next((span for span in self._spans if bool(((words > span.start) & (words < span.end)).any())), None)

    def _words(self, data: bytes) -> Words:
        size = self._guest.machine.kind.pointer_size
        return np.frombuffer(data[: len(data) // size * size], dtype=f"<u{size}").astype(np.uint64)

    def _stack(self, vcpu: Vcpu) -> Words:
        """The words from the stack pointer to the stack's end, as far as they are mapped."""
        size = vcpu.machine.kind.pointer_size
        start = vcpu.rsp & -size
        end = (start - 1 | self._guest.stack_size - 1) + 1  # a pointer to the very end is an empty stack's
        data = bytearray()
        while start < end:
            stop = min(end, (start | _PAGE - 1) + 1)
            try:
                data += vcpu.virtual.read(start, stop - start, system=True)
            except GuestFault:
                break
            start = stop
        return self._words(bytes(data))
