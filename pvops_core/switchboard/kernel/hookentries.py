"""How the guest enters Python at the entry of a hook in a kernel's text, and how it leaves again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.ops import signature
from pvops_core.switchboard import dispatch

if TYPE_CHECKING:
    from pvops_core.guest.types.structs import Structures
    from pvops_core.machine import Breakpoint, Machine, Vcpu
    from pvops_core.ops import Layout
    from pvops_core.switchboard.hookfaults import HookFaults
    from pvops_core.switchboard.implementation import Implementation
    from pvops_core.switchboard.kernel.ophook import OpHook

GUEST: Final = "guest"
"""The argument by which a hook is given the kernel's memory by its own types."""


class HookEntries:
    """Opens and closes entries in one machine.

    One of a hook that looks on is a breakpoint at a jump; one of a hook that answers is a gate.

    Args:
        machine: the machine.
        layout: its kernel's table of ops.
        structures: gives its memory by its own types, what a hook is given that takes ``guest``.
        faults: deals with what hooks run into.
    """

    def __init__(
        self, machine: Machine, layout: Layout, structures: Callable[[], Structures], faults: HookFaults
    ) -> None:
        self._faults = faults
        self._machine = machine
        self._layout = layout
        self._structures = structures
        self._open: dict[int, tuple[OpHook, Breakpoint | None]] = {}

    def is_open(self, hook: OpHook) -> bool:
        """Whether the guest enters Python there."""
        return hook.entry in self._open

    def open(self, hooks: Iterable[OpHook]) -> None:
        """From now on; not from inside a handler."""
        gates = {}
        for hook in hooks:
            action = self._action(hook)
            # A hook in the place of the op goes through a gate, which costs no stop of the engine within blocks.
            if hook.answers:
                gates[hook.entry] = action, hook.back
                self._open[hook.entry] = hook, None
            else:
                self._open[hook.entry] = hook, self._machine.break_at(hook.entry, action)
        if gates:
            self._machine.single_gates.open(gates)

    def close(self, entries: Iterable[int]) -> None:
        """No more; not from inside a handler."""
        gates = []
        for entry in entries:
            _hook, breakpoint_ = self._open.pop(entry)
            if breakpoint_ is None:
                gates.append(entry)
            else:
                self._machine.remove(breakpoint_)
        if gates:
            self._machine.single_gates.close(*gates)

    def only(self, hooks: Iterable[OpHook]) -> None:
        """Have no entries open but those of these hooks."""
        wanted = {hook.entry: hook for hook in hooks}
        self.close([entry for entry, (hook, _) in self._open.items() if wanted.get(entry) is not hook])
        self.open(hook for entry, hook in wanted.items() if entry not in self._open)

    def _action(self, hook: OpHook) -> Callable[[Vcpu], None]:
        """What happens when the guest has come to a hook's entry."""

        def answered(vcpu: Vcpu) -> None:
            hook.replaced += 1
            vcpu.rip = hook.back

        def own(vcpu: Vcpu, reason: str) -> None:
            hook.passed[reason] += 1
            vcpu.rip = hook.onward

        # One handler for both: what it answers, and where it lets the kernel go on, differ.
        how, wanted = signature(hook.slot, self._layout.kind), self._with_guest(hook.wanted)
        replies = None if hook.answers else answered
        return dispatch.handler(self._machine, how, wanted, hook.counted, self._faults, replies, own)

    def _with_guest(self, wanted: Implementation) -> Implementation:
        """The same, called with the op's own arguments alone."""
        function = wanted.function
        if function is None or GUEST not in wanted.arguments:
            return wanted
        at, guest = wanted.arguments.index(GUEST), self._structures()
        own = tuple(name for name in wanted.arguments if name != GUEST)

        def with_guest(vcpu: Vcpu, *values: int) -> object:
            return function(vcpu, *values[:at], guest, *values[at:])

        return attrs.evolve(wanted, function=with_guest, arguments=own)
