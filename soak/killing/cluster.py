"""A cluster of Dask and its client as processes, each started again when it is gone, as a service manager would."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs
import psutil

KINDS: Final = ("worker", "nanny", "scheduler", "client")
"""What may be killed. A nanny has started its worker, and starts it again."""
_NANNIES: Final = 2
_END_S: Final = 30
_LATE_S: Final = 10


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@attrs.define
class Cluster:
    """A scheduler, two nannies with a worker each, and whatever client there is now.

    Attributes:
        folder: theirs alone; it is in the environment of all that they start, which they are known by.
        client: command of the next client.
    """

    folder: Path
    client: Callable[[], list[str]]
    _port: int = attrs.field(factory=_free_port)
    _running: dict[str, subprocess.Popen[bytes]] = attrs.field(factory=dict)

    @property
    def address(self) -> str:
        """Of the scheduler, whichever it is."""
        return f"tcp://127.0.0.1:{self._port}"

    def tend(self) -> int | None:
        """Start whatever is gone; if that is the client, give its exit code and leave it to `begin`."""
        commands = {"scheduler": self._scheduler()} | {f"nanny {n}": self._nanny(n) for n in range(_NANNIES)}
        for name, command in commands.items():
            if name not in self._running or self._running[name].poll() is not None:
                self._start(name, command)
        client = self._running.get("client")
        return client.poll() if client else None

    def begin(self) -> None:
        """Start a client."""
        self._start("client", self.client())

    def said(self, name: str = "client") -> str:
        """What a process has last said."""
        return (self.folder / f"{name}.said").read_text(errors="replace")

    def kill(self, kind: str, choose: Callable[[list[psutil.Process]], psutil.Process]) -> bool:
        """Kill a process of a kind; whether there was one."""
        there = [each for name, process in self._running.items() for each in _of_kind(kind, name, process.pid)]
        if not there:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            choose(there).kill()
            return True
        return False

    def end(self) -> list[str]:
        """End all; command lines of what was left behind."""
        for name in ("client", *(name for name in self._running if name.startswith("nanny")), "scheduler"):
            if process := self._running.get(name):
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_END_S)
                process.kill()
                process.wait()
        until = time.monotonic() + _LATE_S
        while (left := list(self._left())) and time.monotonic() < until:
            time.sleep(0.2)
        for each in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        return [_command(each) for each in left]

    def _start(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.said").open("wb") as said:
            self._running[name] = subprocess.Popen(
                command, env=os.environ | self._environ(name), stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )

    def _environ(self, name: str) -> dict[str, str]:
        return {"XDG_CACHE_HOME": str(self.folder / f"cache of {name}")}

    def _scheduler(self) -> list[str]:
        place = ["--host", "127.0.0.1", "--port", str(self._port), "--no-dashboard"]
        return [sys.executable, "-m", "distributed.cli.dask_scheduler", *place]

    def _nanny(self, number: int) -> list[str]:
        size = ["--nworkers", "1", "--nthreads", "1", "--memory-limit", "0", "--no-dashboard"]
        place = ["--local-directory", str(self.folder / f"nanny {number}")]
        return [sys.executable, "-m", "distributed.cli.dask_worker", self.address, *size, *place]

    def _left(self) -> Iterator[psutil.Process]:
        for each in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if each.environ().get("XDG_CACHE_HOME", "").startswith(str(self.folder)):
                    yield each


def _of_kind(kind: str, name: str, pid: int) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return
        if name.partition(" ")[0] == kind:
            yield process
        elif kind == "worker" and name.startswith("nanny"):
            yield from (each for each in process.children() if "--multiprocessing-fork" in each.cmdline())


def _command(process: psutil.Process) -> str:
    try:
        return f"{process.pid}: {' '.join(process.cmdline())}"
    except psutil.NoSuchProcess:
        return f"{process.pid}"
