"""One cell in a child process: whatever happens to that process, the parent gets an observation."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from typing import TYPE_CHECKING

import attrs

from pvops_core.runs import wire
from pvops_core.runs.limits import Limits, resident_bytes
from pvops_core.runs.observation import Observation, Outcome

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable

    from pvops_core.runs.inputfeeder import InputFeeder
    from pvops_core.runs.process import Worker

_MEMORY_POLL_S = 0.1
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
    _started: float = attrs.field(default=0.0, init=False)
    _pid: int | None = attrs.field(default=None, init=False)

    async def run(self) -> Observation:
        """Have the worker run it and wait for the answer. Raises nothing but what ``on_console`` raises.

        The worker is ended, unless it is one that stays and nothing was wrong with it.
        """
        self._started = time.monotonic()
        try:
            process = await self.worker.start(self.limits.output)
        except OSError as error:
            return self._lost(Outcome.DIED, f"the worker could not be started: {error}")
        answer: Observation | _LostError | None = None
        try:
            answer = await self._supervise(process)
        except _LostError as lost:
            answer = lost
        finally:
            if not self.worker.stays or not isinstance(answer, Observation | _RunLostError):
                await self.worker.end()
        if not isinstance(answer, Observation):
            return self._lost(answer.outcome, answer.reason)
        if self.on_said and (past := self.worker.said):
            for line in past.splitlines():
                self.on_said(wire.Said(line))
        return answer

    async def _supervise(self, process: Process) -> Observation:
        """The worker's answer, or ``_LostError``; on a limit the process is left running."""
        answer = asyncio.create_task(self._answer(process))
        watch = asyncio.create_task(self._watch_memory(process.pid))
        try:
            both, limit = {answer, watch}, self.limits.wall_s
            done, _ = await asyncio.wait(both, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if not done and self._debugged:
                done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                reason = f"no end after {self.limits.wall_s:.3g} s of wall time, while {self._phase.value}"
                raise _LostError(Outcome.TIMEOUT, reason)
            return (answer if answer in done else watch).result()
        finally:
            answer.cancel()
            watch.cancel()
            await asyncio.gather(answer, watch, return_exceptions=True)

    async def _answer(self, process: Process) -> Observation:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(ConnectionError):  # it died first: the exit status tells more
            process.stdin.write(self._timed_request().encode())
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

    def _timed_request(self) -> wire.Request:
        limit = self.request.max_seconds
        return self.request if limit is None else attrs.evolve(self.request, deadline=self._started + limit)

    async def _watch_memory(self, pid: int) -> Observation:
        while True:
            if (resident_bytes(self._pid or pid) or 0) > self.limits.memory:
                reason = f"grew beyond {self.limits.memory // _MIB} MiB of memory, while {self._phase.value}"
                raise _LostError(Outcome.MEMORY, reason)
            await asyncio.sleep(_MEMORY_POLL_S)

    def _lost(self, outcome: Outcome, reason: str) -> Observation:
        return Observation(
            self.request.cell,
            outcome,
            reason=reason,
            console="".join(self._console),
            detail=self.worker.complaints,
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
