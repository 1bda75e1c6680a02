"""A child process that may do anything: started, limited in time, memory and output, listened to, and ended for good.

Answers are lines on its standard output; :mod:`~pvops_core.child.serving` is its own side of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

import attrs

from pvops_core.child import marks
from pvops_core.child.limits import Limits, resident_bytes
from pvops_core.child.offspring import Offspring
from pvops_core.child.serving import TELL_WHERE

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Callable, Coroutine, Mapping

T = TypeVar("T")

INTERPRETER: Final = (sys.executable, "-P")  # -P: a file of the current directory must not shadow a module
_BEGIN: Final = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from importlib import import_module; "
    "module, _, function = sys.argv[2].partition(':'); getattr(import_module(module), function)()"
)
_STDERR_TAIL: Final = 8 << 10
_DRAIN_S: Final = 5.0  # a process that hides from us may hold the pipe open for ever
_POLL_S: Final = 0.1
_MIB: Final = 1 << 20


def python(entry: str) -> tuple[str, ...]:
    """The command of a child that finds modules where this process does, and calls ``module:function``."""
    return (*INTERPRETER, "-c", _BEGIN, json.dumps(sys.path), entry)


def _room_for_a_loop() -> None:
    """Raise OSError for want of what a loop opens: one that asyncio has made half complains when it is collected."""
    with select.epoll():
        for end in socket.socketpair():
            end.close()


def finish(conversation: Coroutine[None, None, T]) -> T:
    """The result of a talk with children, for callers that are not asynchronous, though one above them may be.

    Raises:
        OSError: the host has no descriptors for a loop.
    """
    try:
        _room_for_a_loop()
    except OSError:
        conversation.close()
        raise
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(conversation)
    with ThreadPoolExecutor(1) as apart:
        return apart.submit(asyncio.run, conversation).result()


class Loss(enum.Enum):
    """In which way a child was lost."""

    DIED = enum.auto()
    TIMEOUT = enum.auto()
    MEMORY = enum.auto()
    GARBAGE = enum.auto()


class ChildLostError(Exception):
    """A child will not answer: how it was lost, and why in a sentence."""

    def __init__(self, loss: Loss, reason: str) -> None:
        super().__init__(reason)
        self.loss = loss
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


def how_it_ended(status: int) -> str:
    """An exit status, or the negative number of a signal, in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


@attrs.define(eq=False)
class Child:
    """A child's place: at most one process at a time, which is ended with all that it started.

    Attributes:
        command: how the process is started.
        name: what it is called in errors.
        heard: its standard error is the parent's; else the end of it is kept.
        descriptors: those of the parent's that it gets.
        environ: variables beside the parent's.
        doing: what it is at, as it said last; told when it is lost.
        pid: process whose memory counts, where it is not the child's own.
    """

    command: Sequence[str]
    name: str = "the child"
    heard: bool = False
    descriptors: tuple[int, ...] = ()
    environ: Mapping[str, str] = attrs.field(factory=dict)
    doing: str = attrs.field(default="", init=False)
    pid: int | None = attrs.field(default=None, init=False)
    stderr: bytearray = attrs.field(factory=bytearray, init=False)
    _process: Process | None = attrs.field(default=None, init=False)
    _marks: marks.Marks | None = attrs.field(default=None, init=False)
    _listening: asyncio.Task[None] | None = attrs.field(default=None, init=False)
    _output: int = attrs.field(default=0, init=False)
    _offspring: Offspring = attrs.field(factory=Offspring, init=False)

    async def start(self, output: int = Limits().output) -> None:
        """Have a process, the one that is there if it lives; OSError where there can be none.

        Args:
            output: bytes that a line of its may have.
        """
        self.stderr.clear()
        self.doing, self.pid, self._output = "", None, output
        if self._process is None or self._process.returncode is not None:
            await self.end()
            self._marks, shared, place = marks.memory()
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self.command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=None if self.heard else asyncio.subprocess.PIPE,
                    limit=output,
                    # A terminal's signals do not reach it, and it is ended with its whole group.
                    start_new_session=True,
                    pass_fds=(*self.descriptors, shared),
                    env=os.environ | self.environ | self._offspring.mark | {marks.VARIABLE: place},
                )
            finally:
                # The child has a copy of its own.
                os.close(shared)
            self._listening = asyncio.create_task(self._keep_stderr(self._process))
        if self._marks is not None:
            self._marks.clear()  # of a run before this one

    @property
    def process(self) -> Process:
        """The process that was started."""
        assert self._process is not None
        return self._process

    @property
    def stdin(self) -> asyncio.StreamWriter:
        """Its standard input; the end of it is its sign to go."""
        assert self.process.stdin is not None
        return self.process.stdin

    async def say(self, line: bytes) -> None:
        """Write a line to it; where it has died its end will tell more."""
        with contextlib.suppress(ConnectionError):
            self.stdin.write(line)
            await self.stdin.drain()

    async def line(self) -> bytes:
        """The next line that it writes; nothing once it writes no more. Raises ChildLostError for one too long."""
        assert self.process.stdout is not None
        try:
            return await self.process.stdout.readline()
        except ValueError:  # longer than the stream's limit
            raise self.wrote_too_much() from None

    async def answer(self) -> bytes:
        """The next line that it writes; ChildLostError if it ends before that."""
        line = await self.line()
        if not line:
            raise ChildLostError(Loss.DIED, how_it_ended(await self.process.wait()))
        return line

    def wrote_too_much(self) -> ChildLostError:
        """The loss of a child that floods its parent."""
        return ChildLostError(Loss.GARBAGE, f"{self.name} wrote more than {self._output // _MIB} MiB")

    async def within(
        self, limits: Limits, conversation: Coroutine[None, None, T], late: Callable[[], str] | None = None
    ) -> T:
        """The result of a talk with the process, which is left running whatever comes of it.

        Args:
            limits: what it may take.
            conversation: the talk.
            late: asked again and again for what to say of a talk that takes too long, nothing while it may go on;
                without it, the talk may take the limits' time.

        Raises:
            ChildLostError: it took more time or memory than it may, or the talk found it lost.
        """
        end = time.monotonic() + limits.wall_s
        too_long = f"no end after {limits.wall_s:.3g} s of wall time"
        late = late or (lambda: too_long if time.monotonic() > end else "")
        talk = asyncio.create_task(conversation)
        watch = asyncio.create_task(self._watch(limits.memory, late))
        try:
            done, _ = await asyncio.wait({talk, watch}, return_when=asyncio.FIRST_COMPLETED)
            if talk not in done:
                watch.result()
            return talk.result()
        except ChildLostError as lost:
            lost.reason += self.midst
            raise
        finally:
            talk.cancel()
            watch.cancel()
            await asyncio.gather(talk, watch, return_exceptions=True)

    @property
    def complaints(self) -> str:
        """The end of what came on its standard error since it was started, or was to be."""
        return self.stderr.decode(errors="replace").strip()

    @property
    def midst(self) -> str:
        """What it was in the midst of, to follow what is said of its end; empty if it marked nothing."""
        standing = self._marks.standing() if self._marks is not None else []
        who = {marks.FOR_NONE: ""}
        return "".join(f", in {name}{who.get(value, f', vcpu {value - 1}')}" for name, value in standing)

    async def tell_where(self) -> None:
        """Have a process that does not come back say on standard error what Python code it is in."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid or self.process.pid, TELL_WHERE)
        said = -1
        while len(self.stderr) != said:
            said = len(self.stderr)
            await asyncio.sleep(_POLL_S)

    async def end(self) -> None:
        """Kill the process with all that it started, and collect it, even if the caller is cancelled meanwhile."""
        process, self._process = self._process, None
        if process is not None and self._listening is not None:
            await _in_full(_end(process, self._listening, self._offspring))

    async def _watch(self, memory: int, late: Callable[[], str]) -> None:
        while True:
            if reason := late():
                raise ChildLostError(Loss.TIMEOUT, reason)
            if (resident_bytes(self.pid or self.process.pid) or 0) > memory:
                doing = self.doing and f", while {self.doing}"
                raise ChildLostError(Loss.MEMORY, f"grew beyond {memory // _MIB} MiB of memory{doing}")
            await asyncio.sleep(_POLL_S)

    async def _keep_stderr(self, process: Process) -> None:
        """Read error output to its end, so that the child never blocks on it; keep the last of it."""
        while process.stderr is not None and (block := await process.stderr.read(1 << 16)):
            self.stderr += block
            del self.stderr[:-_STDERR_TAIL]


async def _in_full(ending: Coroutine[None, None, None]) -> None:
    """Let work be done to its end, which is near, even if the task that waits for it is cancelled meanwhile."""
    task = asyncio.create_task(ending)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _end(process: Process, listening: asyncio.Task[None], offspring: Offspring) -> None:
    """Kill the child with all that it started, and collect it.

    The wait is bounded since it lasts until the pipes are closed, which a process that hides can delay.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    offspring.kill()
    if process.stdin is not None:
        process.stdin.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(process.wait(), _drain(process)), _DRAIN_S)
    await asyncio.wait([listening], timeout=_DRAIN_S)
    listening.cancel()
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - else it is closed after its loop is
    await asyncio.sleep(0)


async def _drain(process: Process) -> None:
    """Read what is left: a pipe that is full is not seen to be closed."""
    if process.stdout is not None:
        while await process.stdout.read(1 << 16):
            pass
