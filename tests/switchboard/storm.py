"""Random switches of random ops while the guest runs, half of them where they hurt, against a model of every byte.

``python -m tests.switchboard.storm [COUNT [SEED]]`` makes many; the test beside it makes some. An op has one of two
implementations: its backend's, or a Python function that calls just that. So a guest that is switched to and fro must
give the results of one that is not, and its text is known byte by byte: as the guest patched it, or calls of the gate.
"""

from __future__ import annotations

import inspect
import random
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from pvops_core.backends import load_backends
from pvops_core.errors import OccupiedError, SwitchError
from pvops_core.guests import LAYOUTS
from pvops_core.machine import Reschedule
from pvops_core.ops import LAYOUTS as CATALOGUE
from pvops_core.session import Session
from pvops_core.testing.points import run_to

if TYPE_CHECKING:
    from pvops_core.guests.report import Report

    from pvops_core.machine import Breakpoint, Vcpu
    from pvops_core.patching.sites import SiteRecord

LIMIT_NS = 1_000_000
A_RUN = 25
"""Switches in one run of a guest."""
PAUSE_NS = 60_000
END_NS = 4_000_000_000
BRANCHES = (b"\xe8", b"\xe9")
ANYWHERE = "anywhere"
"""How a switch came that nothing was aimed at."""
SET_UP = "set up"
"""How a hook comes to an op that is then aimed at; it is not counted."""
OFTEN = 5
"""An op is aimed at if the guest's run calls it so often."""


@attrs.frozen
class Cell:
    """One guest on one backend."""

    layout: str
    backend: str
    vcpus: int


@attrs.define
class Tally:
    """What became of the switches."""

    made: Counter[str] = attrs.field(factory=Counter)
    late: list[str] = attrs.field(factory=list)
    refused: list[str] = attrs.field(factory=list)
    wrong: list[str] = attrs.field(factory=list)
    broken: list[str] = attrs.field(factory=list)
    slowest_ns: int = 0

    @property
    def asked(self) -> int:
        """All switches that were asked for."""
        return self.made.total() + len(self.refused)

    @property
    def aimed(self) -> float:
        """The share of those made with a vCPU at a gate of the op or inside one of its sites."""
        return 1 - self.made[ANYWHERE] / max(1, self.made.total())

    @property
    def in_time(self) -> float:
        """The share of those that took effect within a millisecond."""
        return 1 - (len(self.late) + len(self.refused)) / max(1, self.asked)

    def told(self) -> str:
        """A summary of some lines."""
        lines = [
            f"{self.asked} switches: {dict(self.made)}, {self.aimed:.2%} aimed",
            f"{self.in_time:.4%} within 1 ms, slowest {self.slowest_ns} ns",
            f"{len(self.wrong)} with wrong bytes, {len(self.broken)} guests broken, {len(self.refused)} refused",
            *self.wrong[:20],
            *self.broken[:20],
            *self.refused[:20],
            *self.late[:20],
        ]
        return "\n".join(lines)


def cells() -> Iterator[Cell]:
    """Every backend on every layout that it can be, with 1 to 4 vCPUs."""
    backends = load_backends().backends
    for layout in LAYOUTS:
        for name in ("native", "xen", "lguest"):
            if CATALOGUE[layout].kind in backends[name].kinds:
                counts = (1,) if name == "lguest" else (1, 2, 3, 4)
                yield from (Cell(layout, name, vcpus) for vcpus in counts)


class Hook:
    """Calls what the backend calls; may be told to wait first, or to ask for a switch from inside."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.waits = 0
        self.stops = False
        self.inside: Callable[[], None] | None = None
        self.__signature__ = inspect.signature(function)

    def __call__(self, cpu: Vcpu, *arguments: int) -> Any:  # noqa: ANN401 - what the op's own gives
        if self.inside is not None:
            ask, self.inside = self.inside, None
            ask()
        if self.stops:
            self.stops = False
            cpu.machine.stop("aimed", f"vcpu {cpu.index} stands at a gate")
        if self.waits:
            self.waits -= 1
            raise Reschedule
        return self._function(cpu, *arguments)


class Storm:
    """A guest that has come to its workload, and its ops.

    Args:
        session: the guest, patched and running.
        chance: decides everything.
        tally: takes what becomes of the switches.
        cell: for messages.
        often: ops that the guest is going to call often.
    """

    def __init__(
        self, session: Session, chance: random.Random, tally: Tally, cell: Cell, often: Sequence[str] = ()
    ) -> None:
        self.often = often
        self.session, self.chance, self.tally, self.cell = session, chance, tally, cell
        self.board = session.switchboard
        self.sites: dict[str, list[SiteRecord]] = {}
        for site in session.builtin.sites:
            self.sites.setdefault(session.layout.by_type(site.type).op.name, []).append(site)
        self.own = {
            op: own
            for op in self.sites
            if (own := self.board.implementation(op)).function is not None and op != "patch"
        }
        self.hooks: dict[str, Hook] = {}
        self.text = self._text()

    def _text(self) -> bytes:
        start, end = self.session.guest.text_range
        return self.session.read(start, end - start)

    # The model -------------------------------------------------------------------------------------------------------

    def check(self, what: str) -> None:
        """Every byte of text is as it was when the guest had patched itself, but for calls of hooks."""
        start, _ = self.session.guest.text_range
        now, model = self._text(), bytearray(self.text)
        wrong = []
        for op in self.hooks:
            gate = self._gate(op)
            for site in self.sites[op]:
                at = slice(site.address - start, site.address - start + site.length)
                if now[at] not in self._may_be(site, gate):
                    wrong.append(f"{op} at {site.address:#x}: {now[at].hex(' ')}")
                model[at] = now[at]
        if bytes(model) != now:
            place = next(index for index, (a, b) in enumerate(zip(model, now, strict=True)) if a != b)
            wrong.append(f"{start + place:#x}: {now[place : place + 10].hex(' ')}")
        for op, own in self.own.items():
            if op not in self.hooks and self.board.implementation(op) is not own:
                wrong.append(f"{op} has {self.board.implementation(op).name}")
        if wrong:
            self.tally.wrong.append(f"{self.cell} {what}: {'; '.join(wrong[:3])}")

    def _gate(self, op: str) -> int:
        slot = self.session.layout.by_op(op)
        address = self.session.guest.symbols[slot.symbol] + slot.offset
        return int.from_bytes(self.session.read(address, self.session.layout.pointer_size), "little")

    def _may_be(self, site: SiteRecord, gate: int) -> set[bytes]:
        """A hooked site: as built where it cannot be a direct call or jump, or that and nops."""
        built = self.session.guest.image.read(site.address, site.length)
        distance = struct.pack("<I", (gate - site.address - 5) & 0xFFFFFFFF)
        rest = self.session.builtin.nops(site.length - 5) if site.length > 5 else b""
        return {built, *(branch + distance + rest for branch in BRANCHES)}

    # Switches --------------------------------------------------------------------------------------------------------

    def aim(self, op: str) -> str:
        """Bring a vCPU to a gate of the op, or into one of its sites; how, or nothing if none comes by."""
        hook = self.hooks.get(op)
        if hook is None:
            return self._into_site(op)
        hook.stops, hook.waits = True, self.chance.choice((1, 1, 3, 40))
        reached = self.session.run(max_ns=10 * PAUSE_NS).reason == "aimed"
        if reached and hook.waits:
            self.session.run(max_ns=self.chance.randrange(1, 20_000))
        hook.stops = False
        return "gate" if reached else ""

    def _into_site(self, op: str) -> str:
        machine = self.session.machine
        stopped: list[Vcpu] = []

        def stop(vcpu: Vcpu) -> None:
            stopped.append(vcpu)
            machine.stop("aimed", "")

        some = self.chance.sample(self.sites[op], min(12, len(self.sites[op])))
        breakpoints: list[Breakpoint] = [machine.break_at(site.address, stop) for site in some]
        self.session.run(max_ns=10 * PAUSE_NS)
        for each in breakpoints:
            machine.remove(each)
        for _ in range(self.chance.randrange(1, 4) if stopped else 0):
            if self._at_site(stopped[0], op):
                machine.step(stopped[0])
        return "site" if stopped else ""

    def _at_site(self, vcpu: Vcpu, op: str) -> bool:
        return any(site.address <= vcpu.rip < site.address + site.length for site in self.sites[op])

    def toggle(self, how: str, op: str) -> None:
        """Switch an op to the other of its two implementations, now."""
        before = self.session.machine.clock.ns
        wanted = self._other(op)
        try:
            self.board.switch(op, wanted, by="storm")
        except SwitchError as error:
            self._refused(op, how, error)
        else:
            self._made(op, wanted, how, self.session.machine.clock.ns - before)
        self.check(f"{op} ({how})")

    def toggle_from_inside(self, op: str) -> bool:
        """The op's hook, when it is next called, asks for the op to be switched back."""
        hook, clock, board = self.hooks[op], self.session.machine.clock, self.board
        asked: list[int] = []

        def ask() -> None:
            asked.append(clock.ns)
            board.switch(op, self.own[op], by="storm")

        hook.inside = ask
        before = len(board.history)
        self.session.run(max_ns=10 * PAUSE_NS)
        hook.inside = None
        if not asked:
            return False
        outcome = next(switch for switch in board.history[before:] if switch.op == op)
        if outcome.refused:
            self.tally.refused.append(f"{self.cell} {op} (inside): {outcome.refused}")
        else:
            self._made(op, self.own[op], "inside", outcome.ns - asked[0])
        self.check(f"{op} (inside)")
        return True

    def _other(self, op: str) -> Any:  # noqa: ANN401 - whatever a switch takes
        if op in self.hooks:
            return self.own[op]
        function = self.own[op].function
        assert function is not None
        return Hook(function)

    def _made(self, op: str, wanted: object, how: str, ns: int) -> None:
        if how != SET_UP:
            self.tally.made[how] += 1
        self.tally.slowest_ns = max(self.tally.slowest_ns, ns)
        if ns > LIMIT_NS:
            self.tally.late.append(f"{self.cell} {op} ({how}): {ns} ns")
        if isinstance(wanted, Hook):
            self.hooks[op] = wanted
        else:
            del self.hooks[op]

    def _refused(self, op: str, how: str, error: SwitchError) -> None:
        cause = error.__cause__
        named = isinstance(cause, OccupiedError) and cause.place and (cause.vcpu is not None or cause.task)
        to = self.tally.refused if named else self.tally.broken
        to.append(f"{self.cell} {op} ({how}): {error}")

    # A run -----------------------------------------------------------------------------------------------------------

    def blow(self, switches: int) -> None:
        """Some switches at random moments of a run; ends when they are made, or the guest has ended."""
        chance, made = self.chance, 0
        while made < switches:
            if self.session.run(max_ns=chance.randrange(1, PAUSE_NS)).reason != "timeout":
                return
            # An aim may miss, so what is aimed goes first: whoever is behind catches up.
            if chance.random() < 0.5 and self.tally.aimed > 0.5:
                self.toggle(ANYWHERE, chance.choice(sorted(self.own)))
                made += 1
            else:
                made += self.aimed(chance.choice(self.often))

    def aimed(self, op: str) -> int:
        """A switch of an op that somebody is calling, or is inside of a site of; how many that took."""
        first = op not in self.hooks and self.chance.random() < 0.5
        if first:
            self.toggle(SET_UP, op)
        if op in self.hooks and self.chance.random() < 0.3:
            return self.toggle_from_inside(op)
        how = self.aim(op)
        if how:
            self.toggle(how, op)
        return bool(how)


def results(session: Session) -> tuple[str, dict[str, Any]]:
    """How the guest ended, and what it found."""
    stop = session.run(max_ns=END_NS)
    report: Report | None = session.report() if stop.reason == "poweroff" else None
    return stop.reason + (f" {stop.detail}" if report is None else ""), dict(report.results) if report else {}


def called_often(storm: Storm) -> list[str]:
    """Ops that the guest calls often from here on, those among them that are inline code otherwise."""
    for op in sorted(storm.own):
        storm.toggle(SET_UP, op)
    before = storm.board.calls.copy()
    results(storm.session)
    return [op for op, calls in sorted((storm.board.calls - before).items()) if calls >= OFTEN and op in storm.own]


def storm(cell: Cell, count: int, seed: int, tally: Tally, kind: type[Storm] = Storm) -> None:
    """So many switches of a kind on one cell, in runs that all begin where the guest's workload does."""
    backends = load_backends().backends
    chance = random.Random(f"{cell} {seed}")
    with Session.of_builtin(
        cell.layout, cell.backend, backends=backends, vcpus=cell.vcpus, seed=seed, memory=8 << 20
    ) as session:
        run_to(session, "running")
        start = session.machine.snapshot()
        wanted = results(session)
        session.machine.restore(start)
        often = called_often(Storm(session, chance, Tally(), cell))
        end = tally.asked + count
        while tally.asked < end:
            session.machine.restore(start)
            blown = kind(session, chance, tally, cell, often)
            try:
                blown.blow(min(A_RUN, end - tally.asked))
                found = results(session)
            except Exception as error:  # noqa: BLE001 - a storm counts what goes wrong
                found = (f"{type(error).__name__}: {error}", {})
            if found != wanted:
                tally.broken.append(f"{cell}: {found[0]}, with hooks in {sorted(blown.hooks)}")


def main(count: int = 20_000, seed: int = 1) -> int:
    """All cells; 0 if nothing went wrong."""
    tally, there = Tally(), list(cells())
    for number, cell in enumerate(there):
        storm(cell, count * (number + 1) // len(there) - count * number // len(there), seed, tally)
        sys.stdout.write(f"{cell}: {tally.asked} asked, {len(tally.refused)} refused\n")
    sys.stdout.write(tally.told() + "\n")
    return int(bool(tally.wrong or tally.broken) or tally.in_time < 0.99 or tally.aimed < 0.5)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
