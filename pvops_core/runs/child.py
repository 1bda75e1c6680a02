"""One cell in a child process: whatever happens to that process, the parent gets an observation."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from typing import TYPE_CHECKING

import attrs

from pvops_core.backends.blame import own_stack
from pvops_core.errors import HostMemoryError, tells_of_no_memory
from pvops_core.runs import wire
from pvops_core.runs.limits import Limits, resident_bytes
from pvops_core.runs.observation import Observation, Outcome

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable

    from pvops_core.runs.inputfeeder import InputFeeder
    from pvops_core.runs.process import Worker

_POLL_S = 0.1
_MIB = 1 << 20


class _LostError(Exception):
    """The child will not answer: how it was lost, and why in a sentence."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


class _RunLostError(_LostError):
    """The run's own process ended without an answer; the worker that had made it is well."""


@attrs.define(eq=False)
class Child:
    """One run by a worker process, and what was said of it so far.

    Attributes:
        request: what is to be run.
        worker: who runs it.
        limits: what it may take.
        on_console: told of each piece of console text as it comes.
        typist: who types at the guest's console while it runs, if anybody.
        on_said: told of each line that a plugin prints or logs.
    """

    request: wire.Request
    worker: Worker
    limits: Limits = attrs.field(factory=Limits)
    on_console: Callable[[str], None] | None = None
    typist: InputFeeder | None = None
    on_said: Callable[[wire.Said], None] | None = None
    _debugged: bool = attrs.field(default=False, init=False)
    _phase: wire.WorkerPhase = attrs.field(default=wire.WorkerPhase.STARTING, init=False)
    _console: list[str] = attrs.field(factory=list, init=False)
    _since: float = attrs.field(default=0.0, init=False)
    _pid: int | None = attrs.field(default=None, init=False)

    async def run(self) -> Observation:
        """Have the worker run it and wait for the answer. Raises nothing but what ``on_console`` raises.

        The worker is ended, unless it is one that stays and nothing was wrong with it.
        """
        self._since = time.monotonic()
        try:
            process = await self.worker.start(self.limits.output)
        except OSError as error:
            return self._lost(Outcome.DIED, f"the worker could not be started: {error}")
        answer: Observation | _LostError | None = None
        try:
            answer = await self._supervise(process)
        except _LostError as lost:
            answer = lost
            if lost.outcome is Outcome.TIMEOUT:
                await self.worker.tell_where(self._pid or process.pid)
        finally:
            if not self.worker.stays or not isinstance(answer, Observation | _RunLostError):
                await self.worker.end()
        if not isinstance(answer, Observation):
            if answer.outcome is Outcome.DIED and tells_of_no_memory(self.worker.complaints):
                return self._lost(Outcome.MEMORY, str(HostMemoryError.of(f"memory while {self._phase.value}")))
            return self._lost(answer.outcome, answer.reason)
        if self.on_said and (past := self.worker.said):
            for line in past.splitlines():
                self.on_said(wire.Said(line))
        return answer

    async def _supervise(self, process: Process) -> Observation:
        """The worker's answer, or ``_LostError``; on a limit the process is left running."""
        answer = asyncio.create_task(self._answer(process))
        watch = asyncio.create_task(self._watch(process.pid))
        try:
            done, _ = await asyncio.wait({answer, watch}, return_when=asyncio.FIRST_COMPLETED)
            return (answer if answer in done else watch).result()
        finally:
            answer.cancel()
            watch.cancel()
            await asyncio.gather(answer, watch, return_exceptions=True)

    @property
    def _late(self) -> bool:
        """Whether the worker has had all the time for what it does now."""
        limit = self.limits.patience_s if self._phase is wire.WorkerPhase.RUNNING else self.limits.start_s
        return not self._debugged and time.monotonic() > self._since + limit

    def _waited_for(self) -> str:
        match self._phase:
            case wire.WorkerPhase.RUNNING:
                return f"no end after {self.limits.wall_s:.3g} s of wall time, while {self._phase.value}"
            case wire.WorkerPhase.COLLECTING:
                return f"no answer within {self.limits.start_s:.3g} s of the guest's end, while {self._phase.value}"
        what = f"{self._phase.value} for {self.request.cell.backend}"
        return f"the guest had not started after {self.limits.start_s:.3g} s of wall time, while {what}"

    async def _answer(self, process: Process) -> Observation:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(ConnectionError):  # it died first: the exit status tells more
            process.stdin.write(self.request.encode())
            await process.stdin.drain()
        with self.typist.at(process.stdin) if self.typist else contextlib.nullcontext():
            return await self._read_answer(process, process.stdout)

    async def _read_answer(self, process: Process, stdout: asyncio.StreamReader) -> Observation:
        room = self.limits.output
        found: Observation | None = None
        while line := await _read_line(stdout, self.limits.output):
            message = _decode(line)
            room -= 0 if isinstance(message, wire.Said) else len(line)  # those are not kept here
            if room < 0:
                raise _too_much(self.limits.output)
            match message:
                case Observation():
                    found = self._own(message)
                case wire.Ended() if found is None:
                    raise _RunLostError(Outcome.DIED, f"{_how_it_ended(message.status)} while {self._phase.value}")
                case _:
                    self._note(message)
            if found is not None and (isinstance(message, wire.Ended) or not self.worker.stays):
                return found
        status = await process.wait()
        if found is not None:
            return found
        raise _LostError(Outcome.DIED, f"{_how_it_ended(status)} while {self._phase.value}")

    def _own(self, observation: Observation) -> Observation:
        if observation.cell != self.request.cell:
            raise _LostError(Outcome.GARBAGE, "the worker answered for another run")
        return observation

    def _note(self, message: wire.Message) -> None:
        match message:
            case wire.WorkerPhase():
                self._phase = message
                if message in {wire.WorkerPhase.RUNNING, wire.WorkerPhase.COLLECTING}:
                    self._since = time.monotonic()
            case str():
                self._console.append(message)
                if self.on_console:
                    self.on_console(message)
            case wire.Began():
                self._pid = message.pid
            case wire.Said() if self.on_said:
                self.on_said(message)
            case wire.Debugging():
                self._debugged = True
                if self.typist:
                    self.typist.pause(message.going_on)

    async def _watch(self, pid: int) -> Observation:
        while True:
            if self._late:
                raise _LostError(Outcome.TIMEOUT, self._waited_for())
            if (resident_bytes(self._pid or pid) or 0) > self.limits.memory:
                reason = f"grew beyond {self.limits.memory // _MIB} MiB of memory, while {self._phase.value}"
                raise _LostError(Outcome.MEMORY, reason)
            await asyncio.sleep(_POLL_S)

    def _lost(self, outcome: Outcome, reason: str) -> Observation:
        return Observation(
            self.request.cell,
            outcome,
            reason=reason,
            console="".join(self._console),
            detail=own_stack(self.worker.complaints),
        )


async def _read_line(stream: asyncio.StreamReader, limit: int) -> bytes:
    try:
        return await stream.readline()
    except ValueError:  # longer than the stream's limit
        raise _too_much(limit) from None


def _decode(line: bytes) -> wire.Message:
    try:
        return wire.decode(line)
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        start = line[:60].decode(errors="replace").strip()
        reason = f"the worker's answer makes no sense ({error}): {start!r}"
        raise _LostError(Outcome.GARBAGE, reason) from None


def _too_much(limit: int) -> _LostError:
    return _LostError(Outcome.GARBAGE, f"the worker wrote more than {limit // _MIB} MiB")


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"the worker process ended without an answer (exit status {status})"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"the worker process was killed by {name}"
