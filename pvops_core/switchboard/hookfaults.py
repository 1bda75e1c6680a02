"""What hooks run into: errors that name hook and place, and faults that the guest gets in their stead."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn

import attrs

from pvops_core.backends.blame import from_outside, of_source, own_trace, sentence
from pvops_core.errors import HookError, MachineError, PatchError, PluginError, SwitchError
from pvops_core.machine import GuestFault, Vcpu
from pvops_core.ops import Convention

if TYPE_CHECKING:
    from pvops_core.machine.run.watchdog import SymbolAt
    from pvops_core.ops import Op
    from pvops_core.switchboard.implementation import Implementation

_OF_THEIR_OWN: Final = (PluginError, PatchError, SwitchError)
"""Errors that say already what was asked of us and by whom."""
_STACK: Final = 0x2000
"""What a kernel's stacks are a multiple of, or more (THREAD_SIZE of i386)."""


@attrs.frozen(eq=False)
class _Given:
    """A fault that the guest was given.

    Attributes:
        implementation: whose it was.
        vcpu: who called.
        ns: virtual time.
        fault: it.
        rip: where the guest was.
        saved: guest-virtual address at which the fault's frame has that; None where there is no frame.
    """

    implementation: Implementation
    vcpu: Vcpu
    ns: int
    fault: GuestFault
    rip: int
    saved: int | None

    @property
    def stands(self) -> bool:
        """Whether the guest may still be at it.

        A handler that knows the fault has its frame say where to go on, or jumps there, and the frame is left behind.
        """
        if self.saved is None or _word(self.vcpu, self.saved) is None:
            return True
        # The stack pointer has passed the frame, in the same stack: the handler has returned.
        left = self.saved < self.vcpu.rsp and self.saved // _STACK == self.vcpu.rsp // _STACK
        return not left and _word(self.vcpu, self.saved) == self.rip


def _saved(vcpu: Vcpu, rip: int) -> int | None:
    """Where the frame of a fault just delivered has RIP: behind an error code, and on Xen RCX and R11."""
    places = (vcpu.rsp + number * vcpu.machine.kind.pointer_size for number in range(4))
    return next((place for place in places if _word(vcpu, place) == rip), None)


def _word(vcpu: Vcpu, address: int) -> int | None:
    try:
        return vcpu.virtual.number(address, vcpu.machine.kind.pointer_size, system=True)
    except (GuestFault, MachineError):
        return None


def blame(implementation: Implementation, message: str, frames: str = "") -> HookError:
    """An error of an implementation's code, with the names of its plugin, or of its backend where it is from none."""
    blamed = of_source(implementation.source, message, hook=implementation.op, frames=frames)
    blamed.distribution = blamed.distribution or implementation.backend
    return blamed


def told_of(implementation: Implementation) -> str:
    """What an implementation is called where no error is left to name its plugin."""
    return f"{implementation.name} ({blame(implementation, '').where()})"


@attrs.define(eq=False)
class HookFaults:
    """What the hooks of one guest run into.

    Attributes:
        deliver: gives the guest a fault that a hook ran into, as its own instructions would have.
        symbol_at: names addresses of the guest.
    """

    deliver: Callable[[Vcpu, GuestFault], None]
    symbol_at: SymbolAt = lambda _address: None
    _given: list[_Given] = attrs.field(factory=list, init=False)

    def fault(self, implementation: Implementation, vcpu: Vcpu, fault: GuestFault) -> None:
        """A hook ran into a fault: the guest gets it."""
        ns, rip = vcpu.machine.clock.ns, vcpu.rip
        self.deliver(vcpu, fault)
        given = _Given(implementation, vcpu, ns, fault, rip, _saved(vcpu, rip))
        # Only faults that the guest may still be at: others are told by the log.
        self._given = [each for each in self._given if each.stands and each.saved != given.saved]
        self._given.append(given)

    def forget(self) -> None:
        """The guest goes back to an earlier state."""
        self._given.clear()

    @property
    def last_fault(self) -> str:
        """The last fault of a hook's that the guest is still at, with the author's own frames; empty for none."""
        given = next((each for each in reversed(self._given) if each.stands), None)
        if given is None:
            return ""
        where = f"at {given.ns} ns on vcpu {given.vcpu.index}"
        said = f"{given.implementation.name} ran into this {where}, and the guest was given the fault:"
        return f"{said}\n{own_trace(given.fault)}"

    def let_out(self, implementation: Implementation, op: Op, vcpu: Vcpu, error: BaseException) -> NoReturn:
        """Raise what is to be raised for an exception that a hook let out."""
        if from_outside(error) or isinstance(error, _OF_THEIR_OWN):
            raise error
        if isinstance(error, MachineError):  # the guest's doing as often as the hook's
            error.op, error.vcpu = error.op or op.name, vcpu.index if error.vcpu is None else error.vcpu
            error.rip = vcpu.rip if error.rip is None else error.rip
            raise error
        message = f"{implementation.name} raised {sentence(error)}"
        blamed = blame(implementation, message, own_trace(error))
        blamed.vcpu, blamed.rip, blamed.site = vcpu.index, self._place(vcpu.rip), self._site(op, vcpu)
        raise blamed from error

    def _site(self, op: Op, vcpu: Vcpu) -> str:
        """Where the op was called from: its return address, unless it was jumped to."""
        # An op that is jumped to has pushed nothing, so nothing on the stack says who came.
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
