"""What can be asked of a switchboard, whichever its guest: who implements an op, and another in its place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from pvops_core.machine.run.eventkinds import event_kind

if TYPE_CHECKING:
    from pvops_core.switchboard.findings import Switch
    from pvops_core.switchboard.implementation import Implementation

SWITCH: Final = event_kind(
    "switch",
    "An op has another implementation from now on.",
    op="str: its hook name",
    old="str: the implementation before",
    new="str: the one since",
    by="str: who switched",
    sites="int: call sites that were written",
)
SWITCH_REFUSED: Final = event_kind(
    "switch refused",
    "A switch was asked for and cannot be; everything is as it was.",
    op="str: hook name",
    old="str: what serves it",
    new="str: what was asked for",
    by="str: who asked",
    why="str: the reason",
)

KERNEL: Final = "kernel"
"""Whose a kernel's own functions are, as the name of a backend is for its hooks."""


class Ops(ABC):
    """The ops of one running guest.

    Three kinds of implementations there are: a backend's hook, a Python function put in front of what is there or in
    place of it, and the guest's own function.
    """

    @property
    @abstractmethod
    def calls(self) -> Counter[str]:
        """How often Python code has served each op."""

    @property
    @abstractmethod
    def history(self) -> Sequence[Switch]:
        """The switches so far, in order."""

    @abstractmethod
    def implementation(self, op: str) -> Implementation:
        """The implementation of an op now; UsageError if there is no such op."""

    @abstractmethod
    def switch(self, op: str, implementation: Implementation | Callable[..., Any] | str | None, *, by: str) -> None:
        """Give an op another implementation: its slot, and every site that does not go through the slot.

        It takes effect when nobody goes on inside of what changes, which is brought about: the guest may go on
        meanwhile, for up to a millisecond of virtual time. From inside a hook that is after the call has returned;
        what becomes of it is in ``history``.

        Args:
            op: the op.
            implementation: an implementation, a callable ``f(cpu, …)`` with the hook's arguments, or the name of who
                has one: a backend of the chain, or :data:`KERNEL` for a kernel's own, ``kernel:SYMBOL`` for another
                function of the kernel's; None for a nop.
            by: who asks, for the history.

        Raises:
            UsageError: there is no such op.
            SwitchError: there is no such implementation, or its sites could not be patched; everything is as it was.
        """

    @abstractmethod
    def offered(self, op: str, backend: str) -> Implementation:
        """The implementation that a backend of the chain has for an op; SwitchError if there is none."""

    @abstractmethod
    def use(self, *patterns: str, backend: str = "", by: str = "use") -> tuple[str, ...]:
        """Give ops the hooks that a backend has for them, all in one transaction.

        Ops that share state outside of the guest's memory come together: where a pattern names one of them, the others
        come as well (``Backend.together``).

        Args:
            *patterns: hook names or the kernel's paths, ``mmu.write_cr3``, ``irq.*``; all ops unless any is given.
            backend: name of a backend of the chain; the one in force unless given.
            by: who asks, for the history.

        Returns:
            Paths of the ops that have the backend's hooks now. It has none for the others.

        Raises:
            UsageError: no op is meant by a pattern.
            SwitchError: as for :meth:`switch`; everything is as it was.
        """
