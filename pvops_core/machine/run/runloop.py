"""The one run loop: who runs, for how long, and what happens between two slices."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.errors import MachineError
from pvops_core.machine.engines import BLOCK_NS, StateWord, pauseloops
from pvops_core.machine.run import execution, slices
from pvops_core.machine.run.eventkinds import event_kind
from pvops_core.machine.run.rewritten import Rewritten
from pvops_core.machine.run.slices import PartialSlice  # noqa: TC001 - states are read by their types
from pvops_core.machine.run.stops import ENDS, FROM_OUTSIDE, Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from pvops_core.machine.base import MachineBase
    from pvops_core.machine.exits.cpuslot import CpuSlot
    from pvops_core.machine.handler import TrapHandler
    from pvops_core.machine.run.gates import Gates
    from pvops_core.machine.run.scheduler import Scheduler

_SLICE: Final = event_kind(
    "slice",
    "A time slice ended, on machines with several vCPUs.",
    blocks="int: runs of straight code that began in it",
)

_EXPIRED, _FRONTIER = int(StateWord.EXPIRED), int(StateWord.FRONTIER)
_LONGEST: Final = 1 << 40
"""Runs of code that a saved slice may have left."""
WAIT_NS = 1000
"""Virtual time that a vCPU spends before it looks again for what it waits for."""


@attrs.define
class _Landing:
    """Where a call of guest code is to end, and whether a vCPU has come there."""

    address: int | None
    reached: bool = False


class RunLoop:
    """Runs the vCPUs of one machine; a ``Stateful`` part of it."""

    def __init__(self, machine: MachineBase, scheduler: Scheduler, slots: list[CpuSlot]) -> None:
        self._machine = machine
        self._scheduler = scheduler
        self._slots = slots
        self.gates: Gates  # which want the loop, and are set by the machine that has both
        self.rewritten = Rewritten()
        self.running = False
        self.deadline: int | None = None  # virtual time at which the present run is to be over
        self.acting: int | None = None  # who is executing, or a handler of its
        self._deferrer: int | None = None
        self.interrupted = False
        self._over = False  # the slice is, for something in the guest
        self._left: PartialSlice | None = None
        self._stop: Stop | None = None
        self._asked = self._paused = self._stepped = False
        self._landing: _Landing | None = None  # where the call of guest code that goes on is to end
        self.call_ended: Stop | None = None  # the last call of guest code, by a handler
        self._error: BaseException | None = None
        self._deferred: list[tuple[Callable[[], None], int | None]] = []
        self.watchers: list[Callable[[], int | None]] = []

    @property
    def in_guest(self) -> bool:
        """Whether a vCPU is executing or a handler of its is."""
        return self.acting is not None

    @property
    def behalf(self) -> int | None:
        """Index of the vCPU that is executing, or whose handler deferred what is done now."""
        return self._deferrer if self.acting is None else self.acting

    @property
    def platform(self) -> TrapHandler:
        """Who answers traps."""
        return self._machine.platform

    def interrupt(self) -> None:
        """End the present slice when the handler returns."""
        self.interrupted = self._over = True

    def stop(self, stop: Stop) -> None:
        """End the run when the handler returns; the first reason counts."""
        # The first reason is why the run ended; what follows it is aftermath.
        self._stop = self._stop or stop
        self.interrupted = True

    def pause(self, *, at_once: bool) -> None:
        """Come out of the run where the machine stands, unless it ends for another reason.

        Args:
            at_once: from a handler; else from any thread, and the slice that is going on is finished first.
        """
        if at_once:
            self._paused = self.interrupted = True
        else:
            # Nothing more from another thread: what the engine just comes out for would be taken for an interruption.
            self._asked = True

    @property
    def leaving(self) -> bool:
        """Somebody wants the run to come out: nothing of the host's is to be waited for."""
        return self.interrupted or self._asked

    def fail(self, error: BaseException) -> None:
        """End the run with an error; the first counts."""
        self._error = self._error or error
        self.interrupted = True

    def defer(self, action: Callable[[], None]) -> None:
        """Run an action between two slices."""
        self._deferred.append((action, self.behalf))
        self.interrupted = True

    def save(self) -> PartialSlice | None:
        """State for a snapshot."""
        return self._left

    def load(self, state: PartialSlice | None) -> None:
        """Go back to a saved state; MachineError if it is none of this machine's."""
        if state is not None and not (0 <= state.vcpu < len(self._slots) and max(state) < _LONGEST):
            raise MachineError(f"no vCPU here can be interrupted in a slice of {state}")
        self._left = state

    def forget(self) -> None:
        """The machine goes back to an earlier state: what was asked for since then, outside of a run, is void."""
        self._stop = self._error = None
        self._deferred.clear()
        # Engines keep translations of text that the older state has otherwise.
        self.rewritten.restored()

    def reschedule(self) -> None:
        """End the present slice for a vCPU that waits for another; time passes, so that waiting for ever ends."""
        # A vCPU that spins on another would else spend no time, and a deadline would never come.
        self._machine.clock.advance(WAIT_NS)
        self.interrupt()

    def arrive(self, address: int) -> bool:
        """A vCPU is about to execute an instruction; whether that ends a call of guest code."""
        if self._landing is None or address != self._landing.address:
            return False
        self._landing.reached = self.interrupted = True
        return True

    @contextmanager
    def _landing_at(self, address: int | None) -> Iterator[_Landing]:
        """While a call is to end at an address, perhaps made in the midst of another."""
        outer, landing = self._landing, _Landing(address)
        self._landing = landing
        try:
            yield landing
        finally:
            self._landing = outer

    def run(self, max_ns: int | None, until: int | None, step: Collection[int] = ()) -> Stop:
        """Run until something stops the machine, a vCPU comes to an address, or one of some has made a step."""
        if self.running:
            raise MachineError("the machine is running already")
        clock = self._machine.clock
        deadline = self.deadline = None if max_ns is None else clock.ns + max_ns
        if until is not None:
            # Whichever vCPU comes there first ends the run, so all of them look for it.
            for slot in self._slots:
                slot.addresses.stop_at(until)
        self.running = True
        try:
            with self._landing_at(until) as landing:
                while True:
                    horizon = self._between()
                    if self._stop is not None:
                        return self._stop
                    if landing.reached:
                        return Stop("landed")
                    if self._stepped or self._paused:
                        return Stop("stepped" if self._stepped else "paused")
                    if deadline is not None and clock.ns >= deadline:
                        return Stop("timeout", f"{max_ns} ns of virtual time have passed")
                    self._turn(deadline, horizon, step)
        finally:
            # A slice that an error cut is not gone on with: nobody knows what of it has happened.
            if self._error is not None or self._ends:
                self._left = None
            self.running, self.deadline = False, None
            self._stop = self._error = None
            self._asked = self._paused = self._stepped = False
            self._deferred.clear()

    def _between(self) -> int | None:
        """Hand on an error, do what was deferred; between two slices ask the watchers.

        Returns:
            The time at which they want to be asked.
        """
        self._raise()
        try:
            while self._deferred:
                # One at a time: an action may defer another, which then comes in this same turn.
                action, self._deferrer = self._deferred.pop(0)
                action()
        finally:
            self._deferrer = None
        self._give_up()
        self._paused = self._paused or self._asked
        # In the midst of a slice nothing of the guest's is looked at, or where it was cut would show; and where the run
        # comes out now, the next one asks.
        comes_out = self._left is not None or self._paused or self._stepped
        watchers = () if comes_out else tuple(self.watchers)
        wishes = [wish for watcher in watchers if (wish := watcher()) is not None]
        self.interrupted = False
        return min(wishes, default=None)

    @property
    def _ends(self) -> bool:
        """Whether the guest has come to its end: no slice goes on, and watchers see what the last one did."""
        return self._stop is not None and self._stop.reason in ENDS

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _turn(self, deadline: int | None, horizon: int | None = None, step: Collection[int] = ()) -> None:
        """Give somebody a slice, or more of the last one.

        Args:
            deadline: virtual time from which on nobody is to run: a wish from outside.
            horizon: virtual time at which the slice ends, for something in the guest.
            step: whoever of these it is executes one instruction of it.
        """
        left, self._left = self._left, None
        # The scheduler is asked only for a new slice: one that was interrupted is its vCPU's to the end.
        slot = self._begin(horizon) if left is None else self._resume(left)
        if slot is None:
            return
        patience = 0
        if deadline is not None:
            # Rounded up by a block: the deadline is reached, never missed by a block for ever.
            patience = slices.withhold(slot.state, max(0, deadline - self._machine.clock.ns) // BLOCK_NS + 1)
        self._over = False
        ran = (left.ran if left else 0) + self._slice(slot, steps=slot.vcpu.index in step)
        now = slices.left_over(slot.vcpu.index, slot.state, ran, patience)
        cut = (
            slices.only_withheld(slot.state, patience) if slot.state[_EXPIRED] else self.interrupted and not self._over
        )
        if cut and self._error is None and not self._ends:
            self._left = now
        else:
            self._finish(now)

    def _begin(self, horizon: int | None) -> CpuSlot | None:
        """Prepare a new slice, for whom the scheduler picks; None if nobody can run now."""
        machine = self._machine
        # Two are enough to know: to ask all of them at each slice would make a turn of many cost their number squared.
        awake = (slot for slot in self._slots if slot.vcpu.runnable)
        slot, another = next(awake, None), next(awake, None)
        if slot is None:
            self._idle()
            return None
        if another is not None:
            slot = self._slots[self._scheduler.pick(len(self._slots), self._runs)]
        budget = self._scheduler.length()
        if horizon is not None:
            # Something is due at the horizon, so the slice must not run past it; one block at least, to get anywhere.
            budget = min(budget, max(0, horizon - machine.clock.ns) // BLOCK_NS + 1)
        slices.allow(slot.state, budget, self._lookout(alone=another is None))
        self._nonmaskable(slot)
        self.platform.before_entry(slot.vcpu)
        if self.interrupted or slot.vcpu.halted:
            # Delivering to it may have put it to sleep, or ended the run.
            return None
        # Only one block may pass before the interrupt, since sti's shadow lasts one instruction (SDM volume 2, STI).
        if slot.vcpu.pending and slot.vcpu.interrupt_shadow:
            slices.one_block(slot.state)
        return slot

    def _runs(self, index: int) -> bool:
        return self._slots[index].vcpu.runnable

    def _lookout(self, *, alone: bool) -> int | None:
        """When a new slice is to be looked at first; never on a machine of one."""
        if len(self._slots) == 1:
            return None
        return pauseloops.BETWEEN if alone else self._scheduler.around(pauseloops.FIRST)

    def _resume(self, left: PartialSlice) -> CpuSlot:
        slot = self._slots[left.vcpu]
        slices.resume(slot.state, left)
        self._nonmaskable(slot)
        return slot

    def _nonmaskable(self, slot: CpuSlot) -> None:
        if slot.vcpu.unmaskable:
            # An NMI wakes from hlt (SDM volume 2, HLT) whatever IF says.
            slot.vcpu.wake()
            self._machine.exception(slot.vcpu, slot.vcpu.unmaskable.pop(0), None, None)

    def end_slice(self) -> None:
        """Let nobody go on with a slice that was interrupted."""
        if self._left is not None:
            self._finish(self._left)

    def _give_up(self) -> None:
        """End the slice of one that cannot go on with it: it waits, or is held."""
        if self._left is not None and not self._slots[self._left.vcpu].vcpu.runnable:
            self.end_slice()

    def _finish(self, done: PartialSlice) -> None:
        """A slice is over, be it that the vCPU does not go on with it."""
        self._left = None
        # With one vCPU slices are nothing that a guest, or a reader of its log, can see.
        if len(self._slots) > 1:
            self._machine.log.record(_SLICE, done.vcpu, blocks=done.ran)

    def _idle(self) -> None:
        clock = self._machine.clock
        before = clock.ns
        if not self.platform.idle():
            self.stop(Stop("dead", "every vCPU is halted and nothing will wake one"))
        # Nothing would ever change again: say so instead of spinning.
        elif clock.ns == before and not self.leaving and not any(slot.vcpu.runnable for slot in self._slots):
            raise MachineError("the platform's idle() neither moved the clock nor woke a vCPU")

    def _slice(self, slot: CpuSlot, *, steps: bool = False) -> int:
        """Run until the budget is used up or something interrupts; gives the runs of code that began.

        With ``steps`` one instruction is enough of an interruption.
        """
        state = slot.state
        clock = self._machine.clock
        self.rewritten.enter(slot, self._machine.counts)
        clock.follow(state)
        self.acting = slot.vcpu.index
        start = slot.vcpu.rip if steps else 0
        (slot.steps.begin if steps else slot.steps.end)()
        try:
            status = execution.enter(slot, lambda: self.interrupted)
        finally:
            self.acting = None
            blocks = clock.fold()
            slot.blocks += blocks
        if steps and slot.steps.began:
            # Who came first, at the same place, may have kept it from the instruction.
            waits = slot.vcpu.rip == start and (self._deferred or self._paused or self._stop)
            self._stepped = self._stepped or not waits
        # Faults that waited come first: they belong to what has just run, and RIP is where they put it.
        if self._error is not None or slot.callbacks.finish() or self.interrupted:
            return blocks
        if status:
            self.stop(execution.bad_end(slot, status))
        elif not state[_EXPIRED]:
            if not execution.after_hlt(slot):
                raise MachineError("the engine stopped for no known reason", vcpu=slot.vcpu.index, rip=slot.vcpu.rip)
            self.platform.halted(slot.vcpu)
            # hlt ends a slice for the guest's own reasons, so there is nothing of it left to go on with.
            self._over = True
        return blocks

    def go_on(self, until: int) -> bool:
        """One turn, before what waits for a slice's end is done; False if nobody may run, or the guest has ended."""
        before = self._stop
        if (before is not None and before.reason in ENDS) or not any(slot.vcpu.runnable for slot in self._slots):
            return False
        # Whoever waits for the slice's end was asked to stop as well; that request stands until this turn is over.
        self._stop, self.interrupted = None, False
        self._give_up()
        try:
            self._turn(until)
            self._raise()
            return self._stop is None
        finally:
            self._stop = before or self._stop

    def call(self, slot: CpuSlot, until: int, blocks: int) -> bool:
        """Run one vCPU alone, without interrupts, to ``until``; False if it does not come there in so many blocks."""
        if self.in_guest:
            raise MachineError("a call of guest code from inside a handler: defer it")
        slot.addresses.stop_at(until)
        end, frontier = slot.blocks + blocks, slot.state[_FRONTIER]
        try:
            with self._landing_at(until):
                while slot.vcpu.rip != until:
                    left = end - slot.blocks
                    if left <= 0 or self._ended() or slot.vcpu.halted:
                        return False
                    self.interrupted = False
                    slices.allow(slot.state, left)
                    self._slice(slot)
                    self._raise()
        finally:
            # A call is none of the guest's own code: its runs of code do not count where its own stand.
            slot.state[_FRONTIER] = frontier
            self.call_ended = self._stop if self._ended() else None
            if self._ended():
                self._stop = None
        return True

    def _ended(self) -> bool:
        """A handler has ended the run, not somebody from outside, whose wish outlasts a call of guest code."""
        return self._stop is not None and self._stop.reason not in FROM_OUTSIDE

    def step(self, slot: CpuSlot) -> None:
        """Run one instruction of a vCPU that is not in a handler."""
        slot.steps.end()
        clock, start = self._machine.clock, slot.vcpu.rip
        self.rewritten.enter(slot, self._machine.counts)
        self.interrupted = False
        slices.one_block(slot.state)
        clock.follow(slot.state)
        self.acting = slot.vcpu.index
        try:
            status = execution.step(slot, start)
        finally:
            self.acting = None
            blocks = clock.fold()
            slot.blocks += blocks
            if self._left is not None and self._left.vcpu == slot.vcpu.index:
                # A step within a slice is of it: time must come out the same as if nobody had stepped.
                left = self._left
                self._left = left._replace(ran=left.ran + blocks, budget=left.budget - blocks, looked=0)
        self._raise()
        if slot.callbacks.finish():
            return
        if status:
            self.stop(execution.bad_end(slot, status))
        # hlt is one byte, so this is where it leaves RIP.
        elif slot.vcpu.rip == start + 1 and execution.after_hlt(slot):
            self.platform.halted(slot.vcpu)
