"""What hooks run into: errors that name hook and place, and faults that the guest gets in their stead."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn

import attrs

from pvops_core.backends.blame import from_outside, of_source, own_trace, sentence
from pvops_core.errors import MachineError, PatchError, PluginError, SwitchError
from pvops_core.machine import GuestFault, Vcpu
from pvops_core.ops import Convention

if TYPE_CHECKING:
    from pvops_core.machine.run.watchdog import SymbolAt
    from pvops_core.ops import Op
    from pvops_core.switchboard.implementations import Implementation

_OF_THEIR_OWN: Final = (PluginError, PatchError, SwitchError)
"""Errors that say already what was asked of us and by whom."""


@attrs.define(eq=False)
class Mishaps:
    """What the hooks of one guest run into.

    Attributes:
        deliver: gives the guest a fault that a hook ran into, as its own instructions would have.
        symbol_at: names addresses of the guest.
    """

    deliver: Callable[[Vcpu, GuestFault], None]
    symbol_at: SymbolAt = lambda _address: None
    _last: tuple[Implementation, int, int, GuestFault] | None = attrs.field(default=None, init=False)

    def fault(self, implementation: Implementation, vcpu: Vcpu, fault: GuestFault) -> None:
        """A hook ran into a fault: the guest gets it."""
        self._last = implementation, vcpu.index, vcpu.machine.clock.ns, fault
        self.deliver(vcpu, fault)

    def forget(self) -> None:
        """The guest goes back to an earlier state."""
        self._last = None

    @property
    def last_fault(self) -> str:
        """The last fault that a hook ran into, with the author's own frames; empty if there was none."""
        if self._last is None:
            return ""
        implementation, vcpu, ns, fault = self._last
        said = f"{implementation.name} ran into this at {ns} ns on vcpu {vcpu}, and the guest was given the fault:"
        return f"{said}\n{own_trace(fault)}"

    def let_out(self, implementation: Implementation, op: Op, vcpu: Vcpu, error: BaseException) -> NoReturn:
        """Raise what is to be raised for an exception that a hook let out."""
        if from_outside(error) or isinstance(error, _OF_THEIR_OWN):
            raise error
        if isinstance(error, MachineError):  # the guest's doing as often as the hook's
            error.op, error.vcpu = error.op or op.name, vcpu.index if error.vcpu is None else error.vcpu
            error.rip = vcpu.rip if error.rip is None else error.rip
            raise error
        message = f"{implementation.name} raised {sentence(error)}"
        blamed = of_source(implementation.source, message, hook=implementation.op, frames=own_trace(error))
        blamed.distribution = blamed.distribution or implementation.backend
        blamed.vcpu, blamed.rip, blamed.site = vcpu.index, self._place(vcpu.rip), self._site(op, vcpu)
        raise blamed from error

    def _site(self, op: Op, vcpu: Vcpu) -> str:
        """Where the op was called from: its return address, unless it was jumped to."""
        if op.convention is Convention.JUMP:
            return ""
        try:
            return self._place(vcpu.word(vcpu.rsp))
        except (GuestFault, MachineError):
            return ""

    def _place(self, address: int) -> str:
        name, distance = self.symbol_at(address) or ("", 0)
        if not name:
            return f"{address:#x}"
        return f"{address:#x} <{name}+{distance:#x}>" if distance else f"{address:#x} <{name}>"
