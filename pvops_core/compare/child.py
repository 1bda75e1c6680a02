"""One cell in a child process: whatever happens to that process, the parent gets an observation."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import attrs

from pvops_core.compare import wire
from pvops_core.compare.limits import Limits, resident_bytes
from pvops_core.compare.observation import Observation, Outcome

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable, Coroutine, Sequence

    from pvops_core.compare.typist import Typist

WORKER = (sys.executable, "-P", "-m", "pvops_core.compare.worker")
"""The command of a worker. ``-P``: a file of the current directory must not shadow a module."""

_STDERR_TAIL = 8 << 10
_MEMORY_POLL_S = 0.1
_DRAIN_S = 5.0  # a process that left the child's group may hold the pipe open for ever
_MIB = 1 << 20


class _LostError(Exception):
    """The child will not answer: how it was lost, and why in a sentence."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


@attrs.define(eq=False)
class Child:
    """One worker process and what it has said so far.

    Attributes:
        request: what it was asked to run.
        limits: what it may take.
        command: how it is started.
        on_console: told of each piece of console text as it comes.
        typist: who types at the guest's console while it runs, if anybody.
    """

    request: wire.Request
    limits: Limits = attrs.field(factory=Limits)
    command: Sequence[str] = WORKER
    on_console: Callable[[str], None] | None = None
    typist: Typist | None = None
    _phase: wire.Phase = attrs.field(default=wire.Phase.STARTING, init=False)
    _console: list[str] = attrs.field(factory=list, init=False)
    _stderr: bytearray = attrs.field(factory=bytearray, init=False)
    _started: float = attrs.field(default=0.0, init=False)

    async def run(self) -> Observation:
        """Start the worker, wait for its answer, end it. Raises nothing but what ``on_console`` raises."""
        self._started = time.monotonic()
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=self.limits.output,
                start_new_session=True,
            )
        except OSError as error:
            return self._lost(Outcome.DIED, f"the worker could not be started: {error}")
        listening = asyncio.create_task(self._keep_stderr(process))
        outcome: Observation | _LostError
        try:
            outcome = await self._supervise(process)
        except _LostError as lost:
            outcome = lost
        finally:
            await _in_full(_end(process, listening))
        return outcome if isinstance(outcome, Observation) else self._lost(outcome.outcome, outcome.reason)

    async def _supervise(self, process: Process) -> Observation:
        """The worker's answer, or ``_LostError``; on a limit the process is left running."""
        answer = asyncio.create_task(self._answer(process))
        watch = asyncio.create_task(self._watch_memory(process.pid))
        try:
            done, _ = await asyncio.wait(
                {answer, watch}, timeout=self.limits.wall_s, return_when=asyncio.FIRST_COMPLETED
            )
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
        while line := await _read_line(stdout, self.limits.output):
            room -= len(line)
            if room < 0:
                raise _too_much(self.limits.output)
            message = _decode(line)
            match message:
                case wire.Phase():
                    self._phase = message
                case str():
                    self._console.append(message)
                    if self.on_console:
                        self.on_console(message)
                case Observation():
                    if message.cell != self.request.cell:
                        raise _LostError(Outcome.GARBAGE, "the worker answered for another run")
                    return message
        raise _LostError(Outcome.DIED, f"{_how_it_ended(await process.wait())} while {self._phase.value}")

    def _timed_request(self) -> wire.Request:
        limit = self.request.max_seconds
        return self.request if limit is None else attrs.evolve(self.request, deadline=self._started + limit)

    async def _watch_memory(self, pid: int) -> Observation:
        while True:
            if (resident_bytes(pid) or 0) > self.limits.memory:
                reason = f"grew beyond {self.limits.memory // _MIB} MiB of memory, while {self._phase.value}"
                raise _LostError(Outcome.MEMORY, reason)
            await asyncio.sleep(_MEMORY_POLL_S)

    async def _keep_stderr(self, process: Process) -> None:
        """Read error output to its end, so that the child never blocks on it; keep the last of it."""
        assert process.stderr is not None
        while block := await process.stderr.read(1 << 16):
            self._stderr += block
            del self._stderr[:-_STDERR_TAIL]

    def _lost(self, outcome: Outcome, reason: str) -> Observation:
        return Observation(
            self.request.cell,
            outcome,
            reason=reason,
            console="".join(self._console),
            detail=self._stderr.decode(errors="replace").strip(),
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


async def _in_full(ending: Coroutine[None, None, None]) -> None:
    """Let work be done to its end, which is near, even if the task that waits for it is cancelled meanwhile."""
    task = asyncio.create_task(ending)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _end(process: Process, listening: asyncio.Task[None]) -> None:
    """Kill the child and its process group, and collect it.

    The wait is bounded since it lasts until the pipes are closed, which a process outside the group can delay.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdin is not None:
        process.stdin.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(process.wait(), _drain(process)), _DRAIN_S)
    await asyncio.wait([listening], timeout=_DRAIN_S)
    listening.cancel()


async def _drain(process: Process) -> None:
    """Read what is left: a pipe that is full is not seen to be closed."""
    if process.stdout is not None:
        while await process.stdout.read(1 << 16):
            pass
