"""Passes on to a worker what is typed at this process while the guest runs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.records import line
from pvops_core.runs import wire

if TYPE_CHECKING:
    from asyncio import StreamWriter

_MOST = 4096
_PATIENCE_S: Final = 10.0
"""Seconds that a run may take to end when whoever types wants it to: a hook may hang."""


@attrs.define(eq=False)
class InputFeeder:
    """Whoever types at a file descriptor that can be waited for: a terminal, a pipe, a socket.

    Attributes:
        descriptor: the file descriptor.
        keys: gives what of the bytes that were read is for the guest, piece by piece.
        gone: why the run is to end with what is typed; empty if it goes on without.
    """

    descriptor: int
    keys: Callable[[bytes], Iterable[bytes]] = attrs.field(default=lambda data: (data,), kw_only=True)
    gone: str = attrs.field(default="", kw_only=True)
    _leaving: str = attrs.field(default="", init=False)
    _since: float = attrs.field(default=0.0, init=False)
    _loop: asyncio.AbstractEventLoop | None = attrs.field(default=None, init=False)
    _worker: StreamWriter | None = attrs.field(default=None, init=False)

    @property
    def leaving(self) -> str:
        """Why the run was asked to end, if it was."""
        return self._leaving

    @property
    def overdue(self) -> bool:
        """The run was asked to end some time ago."""
        return bool(self._leaving) and time.monotonic() > self._since + _PATIENCE_S

    def leave(self, why: str) -> None:
        """Ask the run to end, at any time, be it from a signal's handler; the first reason counts."""
        if not self._leaving:
            self._leaving, self._since = why, time.monotonic()
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._tell_leaving)

    def ask(self) -> None:
        """Ask the run to stand, and for a prompt."""
        self._say(wire.Typed(b"", asking=True))

    def pause(self, paused: bool) -> None:  # noqa: FBT001 - what happens
        """While a debugger reads the terminal, what is typed is not the guest's."""
        if self._loop is not None and not paused:
            self._loop.add_reader(self.descriptor, self._pass_on)
        elif self._loop is not None:
            self._loop.remove_reader(self.descriptor)

    @contextmanager
    def at(self, worker: StreamWriter) -> Iterator[None]:
        """While entered, what is typed goes to the worker."""
        loop = self._loop = asyncio.get_running_loop()
        self._worker = worker
        self.pause(paused=False)
        if self._leaving:
            self._tell_leaving()
        try:
            yield
        finally:
            self._loop = self._worker = None
            loop.remove_reader(self.descriptor)

    def _pass_on(self) -> None:
        try:
            data = os.read(self.descriptor, _MOST)
        except BlockingIOError:  # somebody else has read it
            return
        except OSError:  # the terminal is gone, or not ours to read
            data = b""
        if not data:
            self.pause(paused=True)
            if self.gone:
                self.leave(self.gone)
            else:
                self._say(wire.Typed(b""))
        for kept in filter(None, self.keys(data)):
            self._say(wire.Typed(kept))

    def _tell_leaving(self) -> None:
        self._say(wire.Typed(b"", self._leaving))

    def _say(self, typed: wire.Typed) -> None:
        if self._worker is not None:
            self._worker.write(line(typed))
