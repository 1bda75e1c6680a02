"""Where a vCPU may be stopped so that functions can be replaced under it.

Xen stops its CPUs on the way back to a guest, where the stack is empty. A guest's kernel has no such place for an
outsider, so two things are asked of each vCPU: whether it is quiescent, and would take an interrupt now
(``quiescence``); and, as every writer of text asks, whether it goes on or returns inside (``guest.returns``), here of
whole functions. Words that merely look like return addresses keep a vCPU away for a while; they cannot make one safe
that is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from pvops_core.guest.stacks.returns import stack_words, words_of
from pvops_core.livepatch.rendezvous import quiescence

if TYPE_CHECKING:
    from pvops_core.guest.stacks.returns import TaskStack
    from pvops_core.guest.stacks.spans import Words
    from pvops_core.livepatch.guest import PatchedGuest
    from pvops_core.machine import Vcpu


@attrs.frozen
class TextSpan:
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

    def __init__(self, guest: PatchedGuest, spans: Sequence[TextSpan]) -> None:
        self._guest = guest
        self._spans = sorted(spans, key=lambda span: span.start)

    def offline(self, vcpu: Vcpu) -> bool:
        """Whether nobody waits for a vCPU."""
        return quiescence.offline(self._guest.calls, vcpu)

    def objection(self, vcpu: Vcpu) -> str:
        """Why a vCPU cannot be stopped here; empty if it can."""
        # Cheap things first: a stack is read last.
        return quiescence.objection(self._guest.calls, vcpu) or self._inside(vcpu)

    def _inside(self, vcpu: Vcpu) -> str:
        """What it goes on in; nothing if that concerns nobody."""
        # In user mode the kernel's stack is empty.
        if self._guest.calls.in_user_mode(vcpu):
            return ""
        inside = self._span_of(vcpu.rip)
        if inside is not None:
            return f"executes {inside.name}"
        span = self._returned_into(stack_words(vcpu, self._guest.stack_size))
        return f"may return into {span.name}" if span is not None else ""

    def objection_of_tasks(self) -> str:
        """Why no vCPU may go on in new text, all being held: a task that sleeps in a function, or one interrupted.

        A vCPU that is not on its task's stack serves an interrupt on a stack of its own, and what it has interrupted
        cannot be seen.
        """
        # All are held, so stacks do not change while they are read.
        for task in self._guest.tasks():
            if task.vcpu is None:
                span = self._returned_into(words_of(task.words, self._guest.machine.kind))
                if span is not None:
                    return f"{task.name} sleeps in {span.name}"
            elif self._elsewhere(self._guest.machine.vcpus[task.vcpu], task):
                return f"vcpu {task.vcpu} is on a stack that is not that of {task.name}"
        return ""

    def _elsewhere(self, vcpu: Vcpu, task: TaskStack) -> bool:
        # Those execute nothing of the kernel now.
        if self.offline(vcpu) or self._guest.calls.in_user_mode(vcpu):
            return False
        # On an interrupt's stack, say: the task's words are not all there are.
        return not task.start <= vcpu.rsp <= task.end

    def _span_of(self, address: int) -> TextSpan | None:
        return next((span for span in self._spans if span.start <= address < span.end), None)

    def _returned_into(self, words: Words) -> TextSpan | None:
        # A return address lies behind a call, never at a function's first byte.
        return next((span for span in self._spans if bool(((words > span.start) & (words < span.end)).any())), None)
