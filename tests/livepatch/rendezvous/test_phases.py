"""The meeting of vCPUs: every interleaving of two and of three, and many of eight.

Each modelled vCPU runs guest code that may be the text to change, comes in when it can, switches interrupts off, and
goes on. What may never happen is written down once, in ``Room.check``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import attrs
import pytest

from pvops_core.livepatch.rendezvous.phases import Rendezvous, RendezvousPhase

TIMEOUT = 6


@attrs.frozen
class Cpu:
    """One vCPU: where it is, whether its interrupts are on.

    ``where`` is "user", "text" (inside the bytes to be patched), "irqoff" or "handler" (came in, then was interrupted).
    """

    where: str = "user"


@attrs.frozen
class Room:
    """All there is: vCPUs, the clock, the meeting's counters, and whether the text is new."""

    cpus: tuple[Cpu, ...]
    now: int
    new: bool
    phase: RendezvousPhase
    master: int | None
    inside: frozenset[int]
    off: frozenset[int]

    def meeting(self) -> Rendezvous:
        made = Rendezvous(range(len(self.cpus)), 0, TIMEOUT)
        made.phase, made.master = self.phase, self.master
        made._in, made._off = set(self.inside), set(self.off)
        return made

    def after(self, meeting: Rendezvous, **changes: int) -> Room:
        return attrs.evolve(
            attrs.evolve(self, **changes),  # type: ignore[arg-type]
            phase=meeting.phase,
            master=meeting.master,
            inside=frozenset(meeting._in),
            off=frozenset(meeting._off),
        )

    def moves(self) -> Iterator[tuple[str, Room]]:
        """Everything that may happen next."""
        if self.phase in {RendezvousPhase.DONE, RendezvousPhase.LATE}:
            return
        for index in range(len(self.cpus)):
            yield from self._moves_of(index)
        if self.phase is RendezvousPhase.QUIET:
            meeting = self.meeting()
            meeting.acted()
            yield "act", self.after(meeting, new=True)
            meeting = self.meeting()
            meeting.abort()
            yield "abort", self.after(meeting)
        elif self.now <= TIMEOUT:
            meeting = self.meeting()
            meeting.expire(self.now + 1)
            yield "tick", self.after(meeting, now=self.now + 1)

    def _moves_of(self, index: int) -> Iterator[tuple[str, Room]]:
        cpu, meeting = self.cpus[index], self.meeting()
        if meeting.silent(index):
            return
        if not meeting.arrived(index):
            for where in {"user", "text", "irqoff"} - {cpu.where}:
                yield f"{index} to {where}", self._with(index, where)
            if cpu.where == "user":
                meeting.come_in(index, self.now)
                yield f"{index} in", self.after(meeting)
        elif cpu.where == "handler":
            yield f"{index} back", self._with(index, "user")
        else:
            yield f"{index} interrupted", self._with(index, "handler")
            if self.phase is RendezvousPhase.IRQ:
                meeting.switch_off(index, self.now)
                yield f"{index} off", self.after(meeting)

    def _with(self, index: int, where: str) -> Room:
        cpus = list(self.cpus)
        cpus[index] = Cpu(where)
        return attrs.evolve(self, cpus=tuple(cpus))

    def check(self, before: Room) -> None:
        """What holds always."""
        if self.new and not before.new:
            assert all(cpu.where == "user" for cpu in self.cpus), "text changed under a vCPU that executes it"
            assert before.off == frozenset(range(len(self.cpus)))
            assert self.phase is RendezvousPhase.DONE
        if self.phase is RendezvousPhase.LATE:
            assert not self.new
            assert self.now == TIMEOUT + 1, "given up early, or held on past the deadline"
        else:
            assert self.now <= TIMEOUT
        assert self.off <= self.inside
        assert (self.master is None) == (not self.inside)


def start(count: int) -> Room:
    return Room(
        (Cpu(),) * count, 0, new=False, phase=RendezvousPhase.CPU, master=None, inside=frozenset(), off=frozenset()
    )


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_interleaving(count: int) -> None:
    first = start(count)
    seen, todo, ends = {first}, [first], set()
    while todo:
        room = todo.pop()
        moves = list(room.moves())
        if not moves:
            ends.add(room.phase)
        for _, following in moves:
            following.check(room)
            if following not in seen:
                seen.add(following)
                todo.append(following)
    assert ends == {RendezvousPhase.DONE, RendezvousPhase.LATE}, "every way ends, in one of these"
    assert len(seen) > 10**count


def test_twenty_thousand_walks_of_eight() -> None:
    generator = random.Random(8)
    assert {walk(generator) for _ in range(20_000)} == {RendezvousPhase.DONE, RendezvousPhase.LATE}


def walk(generator: random.Random) -> RendezvousPhase:
    """Eight vCPUs doing as they please against one meeting object, with the same checks."""
    count, timeout = 8, generator.randrange(15, 60)
    meeting, where, now = Rendezvous(range(count), 0, timeout), ["user"] * count, 0
    while not meeting.over:
        index = generator.randrange(count)
        now += generator.randrange(2)
        if meeting.expire(now):
            break
        if meeting.silent(index):
            pass
        elif meeting.arrived(index):
            where[index] = "handler" if where[index] == "user" and generator.random() < 0.1 else "user"
            if where[index] == "user":
                meeting.switch_off(index, now)
        else:
            where[index] = generator.choice(["user", "user", "text", "irqoff"])
            if where[index] == "user":
                meeting.come_in(index, now)
        if meeting.phase is RendezvousPhase.QUIET:
            assert now <= timeout
            assert set(where) == {"user"}
            if generator.random() < 0.2:
                meeting.abort()
                assert not any(map(meeting.arrived, range(count)))
            else:
                meeting.acted()
    if meeting.phase is RendezvousPhase.LATE:
        assert meeting.lateness is not None
        assert meeting.lateness.missing
        assert now == timeout + 1
    return meeting.phase


def test_the_late_are_named() -> None:
    meeting = Rendezvous([0, 1, 2], 100, 30)
    meeting.come_in(1, 110)
    assert meeting.master == 1
    meeting.come_in(0, 130)
    assert not meeting.expire(130)
    assert meeting.expire(131)
    assert str(meeting.lateness) == "Timed out on semaphore in CPU quiesce phase 1/2 (vcpu 2 did not come)"


def test_the_late_of_the_second_phase_are_named_too() -> None:
    meeting = Rendezvous([0, 1], 0, 30)
    for cpu in (0, 1):
        meeting.come_in(cpu, 1)
    meeting.switch_off(1, 2)
    meeting.switch_off(0, 31)
    assert str(meeting.lateness) == "Timed out on semaphore in IRQ quiesce phase 1/1 (vcpu 0 did not come)"


def test_nobody_waits_for_who_goes_offline() -> None:
    meeting = Rendezvous([0, 1, 2], 0, 30)
    meeting.come_in(2, 1)
    meeting.come_in(1, 1)
    meeting.leave(0)
    assert meeting.phase is RendezvousPhase.IRQ
    meeting.switch_off(1, 2)
    meeting.leave(2)
    assert (meeting.master, meeting.phase) == (1, RendezvousPhase.QUIET)
