"""How Python is called for one vCPU.

A handler's fault goes to the guest, its error ends the run, what it asks for may stop the engine. Nothing may leave a
callback as an exception, since there is C above it: the run loop is told, the engine stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pvops_core.machine.cpu.faults import GuestFault, Reschedule
from pvops_core.machine.engines import StateWord
from pvops_core.machine.exits.pageend import PageEnd

if TYPE_CHECKING:
    from collections.abc import Callable

    from pvops_core.machine.cpu.vcpu import Vcpu
    from pvops_core.machine.engines import Engine, Words
    from pvops_core.machine.handler import TrapHandler
    from pvops_core.machine.run.gates import Gates

_FRONTIER, _INSTRUCTIONS = int(StateWord.FRONTIER), int(StateWord.INSTRUCTIONS)
_LEFT_BEFORE = int(StateWord.LEFT_BEFORE)


class Loop(Protocol):
    """What callbacks ask of the run loop."""

    gates: Gates
    interrupted: bool
    """Somebody wants the engine to stop."""

    @property
    def platform(self) -> TrapHandler:
        """Who answers what the machine does not."""

    def interrupt(self) -> None:
        """End the slice when the engine has stopped."""

    def reschedule(self) -> None:
        """End the slice, let the others run, and begin again where the vCPU is."""

    def fail(self, error: BaseException) -> None:
        """End the run with this error."""

    def arrive(self, address: int) -> bool:
        """A vCPU has come to a place where calls end; whether the one under way does."""


class Handlers:
    """What is common to all callbacks of one engine.

    Attributes:
        vcpu: whose.
        engine: its engine.
        state: the words that it shares with native callbacks.
        loop: the run loop.
        page_end: what is done about blocks that run off a page.
        moved: a handler has moved RIP, and the engine is to begin again there.
        destination: where a handler at a gate has sent the vCPU, if anywhere.
        postponed: a fault that waits for the engine to stop, and the registers as they were when it was met.
    """

    def __init__(self, vcpu: Vcpu, engine: Engine, state: Words, loop: Loop) -> None:
        self.vcpu = vcpu
        self.engine = engine
        self.state = state
        self.loop = loop
        self.page_end = PageEnd(vcpu, engine)
        self.moved = False
        self.destination: int | None = None
        self.postponed: tuple[bytes, GuestFault] | None = None
        self._counted = vcpu.machine.count_instructions
        vcpu.debug.serve = self.run_at

    def run(self, action: Callable[..., None], *arguments: object) -> bool:
        """Run a handler: its fault goes to the guest, its error ends the run, its wishes stop the engine.

        Returns:
            Whether the engine is to stop.
        """
        self.vcpu.rip_written = False
        if self.page_end.armed:
            self.page_end.lift()  # as long as the vCPU is where it was armed
        try:
            if self.postponed is None:
                action(self.vcpu, *arguments)
        except BaseException as error:  # noqa: BLE001 - handed on
            self.met(error)
        return self.stops()

    def met(self, error: BaseException) -> None:
        """What a handler raised: a fault goes to the guest, an error to the run loop."""
        vcpu = self.vcpu
        if isinstance(error, GuestFault):
            try:
                vcpu.machine.exception(vcpu, error.vector, error.error_code, error.address)
            except BaseException as failure:  # noqa: BLE001 - handed on by the run loop
                error = failure
            else:
                return
        if isinstance(error, Reschedule):
            self.loop.reschedule()
        else:
            self.loop.fail(error)

    def stops(self) -> bool:
        """After a handler: stop the engine if it has moved RIP, or somebody wants the slice to end."""
        loop = self.loop
        if self.vcpu.rip_written:
            # From now on the engine would not know RIP inside a block (in, out, sysenter): begin again from here.
            self.moved = True
            self.engine.stop()
            return True
        if loop.interrupted:
            self.engine.stop()
        return loop.interrupted

    def run_at(self, action: Callable[..., None], address: int) -> None:
        """Run a handler before an instruction is executed, where the engine stops at once if it can."""
        if self.run(action, address) and self.engine.stops_within:
            self.left_before(address)

    def left_before(self, address: int) -> None:
        """The engine stops before the instruction at an address, which it has counted."""
        self.state[_FRONTIER] = address
        self.state[_LEFT_BEFORE] = int(self.loop.interrupted)
        # Elsewhere, a gate's handler has stood for it.
        if self._counted and self.vcpu.rip == address:
            self.state[_INSTRUCTIONS] -= 1

    def restart(self) -> None:
        """Have the engine begin again where the vCPU is."""
        self.moved = True
        self.engine.stop()

    def guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that hands its errors to the run loop."""

        def call(*arguments: int) -> object:
            try:
                return function(*arguments)
            except BaseException as error:  # noqa: BLE001 - handed on by the run loop
                self.loop.fail(error)
                self.engine.stop()
                return 0

        return call

    def postpone(self, fault: GuestFault) -> None:
        """Unlike other hooks, those of in, out and cpuid cannot end the block: its rest runs before the engine stops.

        So the registers of now are kept, and come back when the engine has stopped.
        """
        self.postponed = (self.vcpu.save_registers(), fault)
        self.loop.interrupt()

    def arrive(self) -> None:
        """The engine has stopped: go where a handler at a gate has sent the vCPU."""
        if self.destination is not None:
            self.vcpu.rip, self.destination = self.destination, None

    def take_postponed(self) -> GuestFault | None:
        """The fault that waits, if one does, with the registers as they were when it was met."""
        if self.postponed is None:
            return None
        (registers, fault), self.postponed = self.postponed, None
        self.vcpu.load_registers(registers)
        return fault
