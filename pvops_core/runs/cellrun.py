"""One cell in a child process: whatever happens to that process, the parent gets an observation."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.backends.blame import own_stack
from pvops_core.backends.keyboard import Stroke
from pvops_core.child.limits import Limits
from pvops_core.child.supervised import INTERPRETER, Child, ChildLostError, Loss, how_it_ended
from pvops_core.errors import HostMemoryError, tells_of_no_memory
from pvops_core.records import line
from pvops_core.runs import wire
from pvops_core.runs.observation import Observation, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pvops_core.runs.inputfeeder import InputFeeder

    Told = Callable[[wire.WorkerPhase | wire.Progress | Stroke], None]

WORKER: Final = (*INTERPRETER, "-m", "pvops_core.runs.worker", "once")
"""The command of a worker that makes one run."""
WARM: Final = (*INTERPRETER, "-m", "pvops_core.runs.worker", "warm")
"""The command of one that stays, and makes each run in a copy of itself."""
_MARK: Final = wire.MARK.decode()


def worker(command: Sequence[str] = WORKER, terminal: tuple[int, int] | None = None) -> Child:
    """A place for a worker's process.

    Args:
        command: how the process is started.
        terminal: descriptors that a debugger in the process may read from and write to.
    """
    descriptors = terminal or ()
    environ = {wire.TERMINAL: ",".join(map(str, descriptors))}
    return Child(command, "the worker", descriptors=descriptors, environ=environ)


class _RunLostError(ChildLostError):
    """The run's own process ended without an answer; the worker that had made it is well."""


@attrs.define(eq=False)
class CellRun:
    """One run by a worker process, and what was said of it so far.

    Attributes:
        request: what is to be run.
        worker: who runs it.
        limits: what it may take.
        stays: the worker may make several runs, one after the other.
        on_console: told of each piece of console text as it comes.
        feeder: who types at the guest's console while it runs, if anybody.
        on_said: told of each line that a plugin prints or logs.
        on_told: told how far it has come, and of each stroke that its guest has taken.
    """

    request: wire.Request
    worker: Child
    limits: Limits = attrs.field(factory=Limits)
    stays: bool = False
    on_console: Callable[[str], None] | None = None
    feeder: InputFeeder | None = None
    on_said: Callable[[wire.Said], None] | None = None
    on_told: Told | None = None
    _console: list[str] = attrs.field(factory=list, init=False)
    _since: float = attrs.field(default=0.0, init=False)
    _phase: wire.WorkerPhase = attrs.field(default=wire.WorkerPhase.STARTING, init=False)
    _debugged: bool = attrs.field(default=False, init=False)
    _stands: float | None = attrs.field(default=None, init=False)

    async def run(self) -> Observation:
        """Have the worker run it and wait for the answer. Raises nothing but what ``on_console`` raises.

        The worker is ended, unless it is one that stays and nothing was wrong with it.
        """
        self._since = time.monotonic()
        try:
            await self.worker.start(self.limits.output)
        except OSError as error:
            return self._lost(Outcome.DIED, f"the worker could not be started: {error}")
        self.worker.doing = self._phase.value
        answer: Observation | ChildLostError | None = None
        try:
            answer = await self.worker.within(self.limits, self._answer(), self._late)
        except ChildLostError as lost:
            answer = lost
            # Before it is ended: its stack shows where it hangs.
            if lost.loss is Loss.TIMEOUT:
                await self.worker.tell_where()
        finally:
            if not self.stays or not isinstance(answer, Observation | _RunLostError):
                await self.worker.end()
        if not isinstance(answer, Observation):
            # A library that gets no memory ends the process by itself: that is the host's doing, and no plugin's.
            if answer.loss is Loss.DIED and tells_of_no_memory(self.worker.complaints):
                return self._lost(Outcome.MEMORY, str(HostMemoryError.of(f"memory while {self._phase.value}")))
            return self._lost(Outcome[answer.loss.name], answer.reason)
        if self.on_said:
            for said in _said(self.worker.complaints).splitlines():
                self.on_said(wire.Said(said))
        return answer

    def _late(self) -> str:
        """What to say of a worker that has had all the time for what it does now; nothing before."""
        running, collecting = wire.WorkerPhase.RUNNING, wire.WorkerPhase.COLLECTING
        limit = self.limits.patience_s if self._phase is running else self.limits.start_s
        if self.feeder is not None and self.feeder.overdue and self._phase is not collecting:
            return f"it did not end when asked to ({self.feeder.leaving}), while {self._phase.value}"
        if self._debugged or self._stands is not None or time.monotonic() <= self._since + limit:
            return ""
        if self._phase is running:
            return f"no end after {self.limits.wall_s:.3g} s of wall time, while {self._phase.value}"
        if self._phase is collecting:
            return f"no answer within {self.limits.start_s:.3g} s of the guest's end, while {self._phase.value}"
        what = f"{self._phase.value} for {self.request.cell.backend}"
        return f"the guest had not started after {self.limits.start_s:.3g} s of wall time, while {what}"

    async def _answer(self) -> Observation:
        await self.worker.say(line(self.request))
        with self.feeder.at(self.worker.stdin) if self.feeder else contextlib.nullcontext():
            return await self._read_answer()

    async def _read_answer(self) -> Observation:
        room = self.limits.output
        found: Observation | None = None
        while text := await self.worker.line():
            message = _decode(text)
            room -= 0 if isinstance(message, wire.Said | wire.Standing) else len(text)  # those are not kept here
            if room < 0:
                raise self.worker.wrote_too_much()
            match message:
                case Observation():
                    found = self._own(message)
                case wire.Ended() if found is None:
                    raise _RunLostError(Loss.DIED, self._without_answer(message.status))
                case _:
                    self._note(message)
            if found is not None and (isinstance(message, wire.Ended) or not self.stays):
                return found
        status = await self.worker.process.wait()
        if found is not None:
            return found
        raise ChildLostError(Loss.DIED, self._without_answer(status))

    def _without_answer(self, status: int) -> str:
        how = how_it_ended(status)
        told = f"was {how}" if status < 0 else f"ended without an answer ({how})"
        return f"the worker process {told} while {self._phase.value}"

    def _own(self, observation: Observation) -> Observation:
        if observation.cell != self.request.cell:
            raise ChildLostError(Loss.GARBAGE, "the worker answered for another run")
        return observation

    def _note(self, message: wire.Message) -> None:  # noqa: C901 - one case a kind
        if self.on_told and isinstance(message, wire.WorkerPhase | wire.Progress | Stroke):
            self.on_told(message)
        match message:
            case wire.WorkerPhase():
                self._phase, self.worker.doing = message, message.value
                # These two have a time of their own; all that comes before shares that of the start.
                if message in {wire.WorkerPhase.RUNNING, wire.WorkerPhase.COLLECTING}:
                    self._since = time.monotonic()
            case str():
                self._console.append(message)
                if self.on_console:
                    self.on_console(message)
            case wire.Began():
                self.worker.pid = message.pid
            case wire.Said() if self.on_said:
                self.on_said(message)
            case wire.Standing():
                self._stand(stands=message.stands)
            case wire.Debugging():
                self._debugged = True
                if self.feeder:
                    self.feeder.pause(message.going_on)

    def _stand(self, *, stands: bool) -> None:
        now = time.monotonic()
        if self._stands is not None:
            self._since += now - self._stands
        self._stands = now if stands else None

    def _lost(self, outcome: Outcome, reason: str) -> Observation:
        return Observation(
            self.request.cell,
            outcome,
            reason=reason,
            # A person's console comes with surrogates for bytes that are no UTF-8, which JSON cannot hold.
            console="".join(self._console).encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
            detail=own_stack(self.worker.complaints.replace(_MARK, "").strip()),
        )


def _said(complaints: str) -> str:
    """What was said past Python's streams once the plugins were loaded."""
    _before, mark, said = complaints.rpartition(_MARK)
    return said.strip() if mark else ""


def _decode(text: bytes) -> wire.Message:
    try:
        return wire.decode(text)
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        start = text[:60].decode(errors="replace").strip()
        reason = f"the worker's answer makes no sense ({error}): {start!r}"
        raise ChildLostError(Loss.GARBAGE, reason) from None
