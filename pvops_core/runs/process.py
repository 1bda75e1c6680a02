"""The process of a worker: started when it is first needed, ended for good."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Coroutine, Sequence

_RUN: Final = (sys.executable, "-P", "-m")  # -P: a file of the current directory must not shadow a module
WORKER: Final = (*_RUN, "pvops_core.runs.worker", "once")
"""The command of a worker that makes one run."""
WARM: Final = (*_RUN, "pvops_core.runs.worker", "warm")
"""The command of one that stays, and makes each run in a copy of itself."""
TERMINAL: Final = "_PVOPS_TERMINAL"
"""Environment variable of a worker: two numbers of descriptors, for a debugger."""
MARK: Final = b"\0"
"""A worker writes it to standard error when its plugins are loaded: what comes before was said in the parent too."""
TELL_WHERE: Final = signal.SIGUSR1
"""A worker that gets this signal writes the frames it is in."""
_SETTLE_S: Final = 0.1
_STDERR_TAIL: Final = 8 << 10
_DRAIN_S: Final = 5.0  # a process that left the worker's group may hold the pipe open for ever


@attrs.define(eq=False)
class Worker:
    """A worker's place: at most one process at a time.

    Attributes:
        command: how the process is started.
        stays: it may make several runs, one after the other.
        terminal: descriptors that a debugger in the process may read from and write to.
    """

    command: Sequence[str] = WORKER
    stays: bool = False
    terminal: tuple[int, int] | None = None
    _process: Process | None = attrs.field(default=None, init=False)
    _stderr: bytearray = attrs.field(factory=bytearray, init=False)
    _listening: asyncio.Task[None] | None = attrs.field(default=None, init=False)

    async def start(self, output: int) -> Process:
        """The process for a run; OSError where there can be none. ``output``: bytes that a line of its may have."""
        self._stderr.clear()
        if self._process is None or self._process.returncode is not None:
            await self.end()
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=output,
                start_new_session=True,
                pass_fds=self.terminal or (),
                env=os.environ | {TERMINAL: ",".join(map(str, self.terminal or ()))},
            )
            self._listening = asyncio.create_task(self._keep_stderr(self._process))
        return self._process

    @property
    def complaints(self) -> str:
        """The end of what came on its standard error in this run."""
        return self._stderr.replace(MARK, b"").decode(errors="replace").strip()

    @property
    def said(self) -> str:
        """What of that was said past Python's streams once its plugins were loaded."""
        _before, mark, said = self._stderr.rpartition(MARK)
        return said.decode(errors="replace").strip() if mark else ""

    async def tell_where(self, pid: int) -> None:
        """Have a process of the worker's that does not come back say on standard error what Python code it is in."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, TELL_WHERE)
        said = -1
        while len(self._stderr) != said:
            said = len(self._stderr)
            await asyncio.sleep(_SETTLE_S)

    async def end(self) -> None:
        """Kill the process with all that it started, and collect it, even if the caller is cancelled meanwhile."""
        process, self._process = self._process, None
        if process is not None and self._listening is not None:
            await _in_full(_end(process, self._listening))

    async def _keep_stderr(self, process: Process) -> None:
        """Read error output to its end, so that the child never blocks on it; keep the last of it."""
        assert process.stderr is not None
        while block := await process.stderr.read(1 << 16):
            self._stderr += block
            del self._stderr[:-_STDERR_TAIL]


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
