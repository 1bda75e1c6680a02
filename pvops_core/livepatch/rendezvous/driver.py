"""The rendezvous on a machine: between two slices, whoever can stop comes in and is held.

A vCPU that is in still takes interrupts until all are: it runs their handlers and comes back. So does Xen's, which is
why the second phase can be late as well.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from pvops_core.livepatch.rendezvous.phases import Rendezvous, RendezvousPhase, RendezvousState

if TYPE_CHECKING:
    from pvops_core.livepatch.rendezvous.safepoints import SafePoints
    from pvops_core.machine import Machine, Vcpu

LOOK_NS = 500
"""How often those that have not come are looked at, in virtual time."""
TASKS_NS = 100_000
"""How long everybody goes on for when a task sleeps where it must not."""
WAIT_NS = 10_000
"""How far time moves at once when nobody can run until something happens."""


class RendezvousDriverState(NamedTuple):
    """A rendezvous, and until when, in virtual time, everybody goes on before it is tried again."""

    rendezvous: RendezvousState
    rest_until: int


class RendezvousDriver:
    """One rendezvous of a machine's vCPUs.

    Args:
        machine: the machine.
        points: knows where a vCPU can be stopped.
        timeout_ns: virtual time that they have to come.
    """

    def __init__(self, machine: Machine, points: SafePoints, timeout_ns: int) -> None:
        self._machine = machine
        self._points = points
        online = (vcpu.index for vcpu in machine.vcpus if not points.offline(vcpu))
        self._rendezvous = Rendezvous(online, machine.clock.ns, timeout_ns)
        self.lateness = ""
        self._rest_until = 0
        self._objections: dict[int | None, Counter[str]] = {}

    @property
    def master(self) -> Vcpu | None:
        """The first that came in; None if nobody has, or all are offline."""
        number = self._rendezvous.master
        return None if number is None else self._machine.vcpus[number]

    def proceed(self) -> int | None:
        """Look at everybody. Gives the time to look again at, or None: all are quiet, or it is too late."""
        rendezvous, clock = self._rendezvous, self._machine.clock
        # Again after an abort, or after time was passed: the state may have changed at once.
        while True:
            # First: a deadline holds whatever is going on.
            if rendezvous.expire(clock.ns):
                self.lateness = self._lateness_told()
                self.release()
                return None
            # After an abort everybody runs undisturbed for a while.
            if clock.ns < self._rest_until:
                return min(rendezvous.deadline + 1, self._rest_until)
            self._come_and_go()
            for vcpu in self._machine.vcpus:
                if rendezvous.arrived(vcpu.index):
                    self._wait(vcpu)
                elif vcpu.index in rendezvous.online and not self._objects(vcpu.index, self._points.objection(vcpu)):
                    rendezvous.come_in(vcpu.index, clock.ns)
                    vcpu.hold()
            self._switch_off()
            if rendezvous.phase is RendezvousPhase.QUIET or not rendezvous.online:
                # Quiet includes those who are offline: one that is started now must not run.
                self._hold_all()
                if not self._objects(None, self._points.objection_of_tasks()):
                    return None
                self._abort()
                continue
            # The least that is needed: the next look, or just behind the deadline.
            if any(vcpu.runnable for vcpu in self._machine.vcpus):
                return min(rendezvous.deadline + 1, clock.ns + LOOK_NS)
            self._pass_time()

    def _objects(self, vcpu: int | None, why: str) -> bool:
        """Note why a vCPU does not come in, or (None) why the tasks do not let it act."""
        if why:
            self._objections.setdefault(vcpu, Counter())[why] += 1
        return bool(why)

    def _come_and_go(self) -> None:
        """Who has been started or parked since."""
        rendezvous = self._rendezvous
        for vcpu in self._machine.vcpus:
            offline = not rendezvous.arrived(vcpu.index) and self._points.offline(vcpu)
            if offline and vcpu.index in rendezvous.online:
                rendezvous.leave(vcpu.index)
            elif not offline and vcpu.index not in rendezvous.online:
                rendezvous.join(vcpu.index)

    def _wait(self, vcpu: Vcpu) -> None:
        """One that is in: an interrupt may take it away, and it comes back when that is served."""
        if not vcpu.held:
            # Back from its handler: it comes in again, if it may.
            if not self._points.objection(vcpu):
                vcpu.hold()
            return
        # In phase IRQ interrupts are off.
        if self._rendezvous.phase is not RendezvousPhase.CPU:
            return
        before = vcpu.rip, vcpu.rsp
        # Only whether something is delivered matters: an interrupt moves rip and rsp.
        self._machine.platform.before_entry(vcpu)
        if (vcpu.rip, vcpu.rsp) != before:
            vcpu.release()

    def _switch_off(self) -> None:
        rendezvous = self._rendezvous
        if rendezvous.phase is RendezvousPhase.IRQ:
            # In order, so that runs repeat.
            for index in sorted(rendezvous.online):
                if self._machine.vcpus[index].held:
                    rendezvous.switch_off(index, self._machine.clock.ns)

    def _abort(self) -> None:
        """Those who are in cannot move a task that sleeps in a function: they go on, and it may wake."""
        if self._rendezvous.phase is RendezvousPhase.QUIET:
            self._rendezvous.abort()
        # A task needs a while to leave: to look at every slice would take as long for nothing.
        self._rest_until = self._machine.clock.ns + TASKS_NS
        for vcpu in self._machine.vcpus:
            vcpu.release()

    def _hold_all(self) -> None:
        for vcpu in self._machine.vcpus:
            vcpu.hold()

    def _pass_time(self) -> None:
        """Nobody can run: those who are in wait for one that sleeps, which an interrupt may wake."""
        self._machine.clock.advance(WAIT_NS)
        for vcpu in self._machine.vcpus:
            # Wakes whoever an interrupt that has come in the meantime is for.
            if vcpu.halted and not vcpu.held:
                self._machine.platform.before_entry(vcpu)

    def _lateness_told(self) -> str:
        lateness = self._rendezvous.lateness
        assert lateness is not None, "late without lateness"
        # Those who were never looked at get their reason now.
        for who in lateness.missing:
            if who not in self._objections:
                self._objects(who, self._points.objection(self._machine.vcpus[who]))
        # The commonest: others may be of a moment.
        heard = {who: whys.most_common(1)[0][0] for who, whys in self._objections.items()}
        told = [heard[None]] if None in heard else []
        told += [f"vcpu {who} {heard[who]}" for who in lateness.missing if who in heard]
        return f"{lateness}: {'; '.join(told) or 'they were on their way'}"

    def release(self) -> None:
        """Everybody goes on."""
        # Those who were held for the act are let go only through here.
        if self._rendezvous.phase is RendezvousPhase.QUIET:
            self._rendezvous.acted()
        for vcpu in self._machine.vcpus:
            vcpu.release()

    def save(self) -> RendezvousDriverState:
        """State for a snapshot; who is held is part of the machine's own."""
        return RendezvousDriverState(self._rendezvous.save(), self._rest_until)

    def load(self, state: RendezvousDriverState) -> None:
        """Go back to a saved state."""
        rendezvous, self._rest_until = state
        self._rendezvous.load(rendezvous)
        self._objections = {}
        self.lateness = ""
