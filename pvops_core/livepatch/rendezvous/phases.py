"""How vCPUs meet: a state machine of counters, as Xen's semaphore and ready flag, that knows nothing of a machine.

The first vCPU in is master. In phase *CPU* the others come in, with interrupts on; when all have, phase *IRQ* begins,
in which each switches interrupts off. One deadline holds for both. When the last has, all are quiet and the master
acts; too late, and everybody goes on as if nothing had been. Source: check_for_livepatch_work in
xen/common/livepatch.c.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple

import attrs


class RendezvousPhase(enum.Enum):
    """Where a rendezvous stands."""

    CPU = "CPU"
    """vCPUs are coming in."""
    IRQ = "IRQ"
    """All are in and switch interrupts off."""
    QUIET = "quiet"
    """All have interrupts off: the master may act."""
    DONE = "done"
    """The master has acted and released everybody."""
    LATE = "late"
    """The deadline passed first; nobody is held any more."""


@attrs.frozen
class MissedDeadline:
    """A deadline that passed.

    Attributes:
        phase: CPU or IRQ.
        arrived: how many vCPUs beside the master had come in that phase.
        wanted: how many there are beside it.
        missing: the vCPUs that had not.
    """

    phase: RendezvousPhase
    arrived: int
    wanted: int
    missing: tuple[int, ...]

    def __str__(self) -> str:
        names = ", ".join(f"vcpu {index}" for index in self.missing)
        return (
            f"Timed out on semaphore in {self.phase.value} quiesce phase {self.arrived}/{self.wanted}"
            f" ({names} did not come)"
        )


class RendezvousState(NamedTuple):
    """A meeting in a snapshot: who must come, the phase, the first that came, who is in, who has interrupts off."""

    online: tuple[int, ...]
    phase: str
    master: int | None
    inside: tuple[int, ...]
    off: tuple[int, ...]


class Rendezvous:
    """One meeting of the online vCPUs.

    Args:
        online: numbers of the vCPUs that must come.
        now: virtual time in nanoseconds.
        timeout_ns: how long both phases may take together.
    """

    def __init__(self, online: Iterable[int], now: int, timeout_ns: int) -> None:
        self.online = frozenset(online)
        self.deadline = now + timeout_ns
        self.phase = RendezvousPhase.CPU
        self.master: int | None = None
        self.lateness: MissedDeadline | None = None
        self._in: set[int] = set()
        self._off: set[int] = set()

    @property
    def over(self) -> bool:
        """Whether it is done or late."""
        return self.phase is RendezvousPhase.DONE or self.phase is RendezvousPhase.LATE

    def arrived(self, cpu: int) -> bool:
        """Whether a vCPU has come in."""
        return cpu in self._in

    def silent(self, cpu: int) -> bool:
        """Whether a vCPU has switched interrupts off for the meeting, and so does not run."""
        return cpu in self._off and not self.over

    def come_in(self, cpu: int, now: int) -> None:
        """A vCPU comes in with an empty stack; the first is master."""
        # A master that comes late finds do_work cleared in Xen.
        if self.expire(now) or self.phase is not RendezvousPhase.CPU or cpu not in self.online:
            return
        # The first increment of the semaphore from -1 makes the master (atomic_inc_and_test()).
        if self.master is None:
            self.master = cpu
        self._in.add(cpu)
        # All are in before anyone switches interrupts off: one that is off cannot be waited for by interrupts.
        if self._in == self.online:
            self.phase = RendezvousPhase.IRQ

    def switch_off(self, cpu: int, now: int) -> None:
        """A vCPU that is in switches its interrupts off; the master's turn counts as the others' do."""
        if self.expire(now) or self.phase is not RendezvousPhase.IRQ:
            return
        self._off.add(cpu)
        if self._off == self.online:
            self.phase = RendezvousPhase.QUIET

    def join(self, cpu: int) -> None:
        """A vCPU comes online: it must come in as well, so the first phase is not over yet."""
        self.online |= {cpu}
        # It may still be late, for the deadline stays.
        if self.phase is RendezvousPhase.IRQ:
            self.phase = RendezvousPhase.CPU

    def leave(self, cpu: int) -> None:
        """A vCPU goes offline: nobody waits for it any more."""
        self.online -= {cpu}
        self._in.discard(cpu)
        self._off.discard(cpu)
        # The lowest: any of those in will do, and runs repeat.
        if self.master == cpu:
            self.master = min(self._in, default=None)
        if self.phase is RendezvousPhase.CPU and self.online and self._in == self.online:
            self.phase = RendezvousPhase.IRQ
        if self.phase is RendezvousPhase.IRQ and self._off == self.online:
            self.phase = RendezvousPhase.QUIET

    def expire(self, now: int) -> bool:
        """livepatch_spin(): look at the clock; True if it is too late, or has been."""
        # Later than the deadline: at it there is still time (NOW() < timeout in livepatch_spin()).
        if now > self.deadline and self.phase in {RendezvousPhase.CPU, RendezvousPhase.IRQ}:
            there = self._in if self.phase is RendezvousPhase.CPU else self._off
            # Xen counts the others: its semaphore goes up to num_online_cpus() - 1.
            others = self.online - ({self.master} if self.master is not None else set())
            self.lateness = MissedDeadline(
                self.phase, len(there & others), len(self.online) - 1, tuple(sorted(self.online - there))
            )
            self.phase = RendezvousPhase.LATE
        return self.phase is RendezvousPhase.LATE

    def abort(self) -> None:
        """The master finds that it may not act yet: everybody goes on for a while, and comes in again."""
        assert self.phase is RendezvousPhase.QUIET
        # A new master, for the old one may not be the first again.
        self.phase, self.master = RendezvousPhase.CPU, None
        self._in.clear()
        self._off.clear()

    def acted(self) -> None:
        """The master has acted: everybody goes on."""
        assert self.phase is RendezvousPhase.QUIET
        self.phase = RendezvousPhase.DONE

    def save(self) -> RendezvousState:
        """State for a snapshot."""
        inside, off = tuple(sorted(self._in)), tuple(sorted(self._off))
        return RendezvousState(tuple(sorted(self.online)), self.phase.value, self.master, inside, off)

    def load(self, state: RendezvousState) -> None:
        """Go back to a saved state."""
        online, phase, self.master, inside, off = state
        self.online, self.phase = frozenset(online), RendezvousPhase(phase)
        self._in, self._off, self.lateness = set(inside), set(off), None
