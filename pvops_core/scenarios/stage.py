"""Runs the built-in guest once and keeps all that a scenario wants to look at afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from pvops_core.backends import chain
from pvops_core.backends.choices import settings_of
from pvops_core.errors import MachineError, UsageError
from pvops_core.guests import BuiltinGuest, Status, builtin_guest
from pvops_core.scenarios.run import Prepare, Run, unprepared
from pvops_core.scenarios.witness import Witness
from pvops_core.session import Session

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.machine import Stop
    from pvops_core.patching.sites import SiteRecord
    from pvops_core.scenarios.acts import Value

MAX_NS = 1_000_000_000
"""Virtual time that a run may take; a sound one takes a tenth of it."""


@attrs.frozen
class TableBuffer:
    """Frames that the guest set aside for its first page tables: used below ``end``, spare from there to ``top``."""

    start: int
    end: int
    top: int

    @classmethod
    def of(cls, session: Session) -> TableBuffer:
        """As the guest's variables say now."""
        return cls(*(_word(session, f"pgt_buf_{name}") for name in ("start", "end", "top")))


def _word(session: Session, symbol: str) -> int:
    return int.from_bytes(session.read(session.guest.symbols[symbol], 8), "little")


@attrs.frozen(eq=False, kw_only=True)
class StagedRun(Run):
    """What one run of the built-in guest came to.

    Attributes:
        done: it came to its own end, by its own report.
        digest: hash over its results; 0 if it has none.
        stack: the words on top of the first vCPU's stack at the end, top first; empty if they cannot be read.
        tables: the frames of its first page tables.
    """

    guest: BuiltinGuest
    digest: int
    stack: tuple[int, ...]
    tables: TableBuffer

    @property
    def name(self) -> str:
        """The layout."""
        return self.guest.layout

    @property
    def sites(self) -> tuple[SiteRecord, ...]:
        """Its own."""
        return self.guest.sites

    @property
    def panic(self) -> str:
        """The guest's last words, if it panicked."""
        lines = [line for line in self.console.splitlines() if line.startswith("guest: panic: ")]
        return lines[-1].removeprefix("guest: ") if lines else ""

    @property
    def ending(self) -> str:
        """How it ended, in a few words."""
        if self.done:
            return f"the guest came to its end, digest {self.digest:016x}"
        return f"{self.stop.reason}: {self.panic or self.stop.detail}"

    @property
    def facts(self) -> Mapping[str, Value]:
        """The digest of a sound run, and how many exceptions there were."""
        return {"digest": f"{self.digest:016x}", "exceptions": len(self.faults)}


@attrs.frozen
class Stage:
    """Where scenarios are played.

    Attributes:
        backends: all that are installed.
        seed: of every run.
        options: settings of platforms, name to text; a run's backend is given those that it has.
    """

    backends: Mapping[str, Backend]
    seed: int = 0
    options: Mapping[str, str] = attrs.field(factory=dict)

    def run(
        self,
        layout: str,
        backend: str | Backend,
        cmdline: str = "",
        *,
        prepare: Prepare = unprepared,
    ) -> StagedRun:
        """Run the built-in guest of a layout to its end.

        Args:
            layout: name of the layout.
            backend: the backend, or the name of an installed one.
            cmdline: the guest's command line.
            prepare: what to do with the session before it runs.

        Raises:
            UsageError: the backend is not there or not for this layout.
        """
        if isinstance(backend, str):
            backend = self.installed(backend)
        witness, guest, backends = Witness(), builtin_guest(layout, cmdline), chain(backend, self.backends)
        known = settings_of(backend, self.backends)
        options = {name: text for name, text in self.options.items() if name in known}
        with Session(guest, backends, seed=self.seed, options=options) as session:
            session.machine.observe(witness.note)
            prepare(session)
            stop = session.run(max_ns=MAX_NS)
            return _collect(session, backend.name, cmdline, stop, witness)

    def installed(self, name: str) -> Backend:
        """An installed backend; UsageError if it is not."""
        if name not in self.backends:
            raise UsageError(f"this scenario needs the backend {name!r}; installed are {', '.join(self.backends)}")
        return self.backends[name]


def _collect(session: Session, backend: str, cmdline: str, stop: Stop, witness: Witness) -> StagedRun:
    machine = session.machine
    start, end = session.guest.text_range
    report = session.report()
    done = report.status is Status.DONE
    return StagedRun(
        guest=session.builtin,
        backend=backend,
        cmdline=cmdline,
        stop=stop,
        done=done and stop.reason == "poweroff",
        digest=report.digest if done else 0,
        console=session.platform.console.decode(errors="replace"),
        faults=tuple(witness.faults),
        events=machine.log.events,
        history=tuple(session.switchboard.history),
        rip=machine.vcpus[0].rip,
        stack=_stack(session),
        text=((start, session.read(start, end - start)),),
        tables=TableBuffer.of(session),
        gates=_gates(session),
    )


def _gates(session: Session) -> dict[int, str]:
    context = session.switchboard.context()
    shared = {0, context.nop_address, context.bug_address}
    named = zip(context.targets, session.layout.slots, strict=True)
    return {target: slot.op.name for target, slot in named if target not in shared}


def _stack(session: Session) -> tuple[int, ...]:
    cpu = session.machine.vcpus[0]
    try:
        return tuple(cpu.word(cpu.rsp + index * session.layout.pointer_size) for index in range(4))
    except (MachineError, OverflowError):
        return ()
