"""Passes on to a worker what is typed at this process while the guest runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs

from pvops_core.records import line
from pvops_core.runs import wire

if TYPE_CHECKING:
    from asyncio import StreamWriter

_MOST = 4096


@attrs.define(eq=False)
class InputFeeder:
    """Whoever types at a file descriptor that can be waited for: a terminal, a pipe, a socket."""

    descriptor: int
    _go_on: Callable[[], None] = attrs.field(default=lambda: None, init=False)

    def pause(self, paused: bool) -> None:  # noqa: FBT001 - what happens
        """While a debugger reads the terminal, what is typed is not the guest's."""
        if paused:
            asyncio.get_running_loop().remove_reader(self.descriptor)
        else:
            self._go_on()

    @contextmanager
    def at(self, worker: StreamWriter) -> Iterator[None]:
        """While entered, what is typed goes to the worker."""
        loop = asyncio.get_running_loop()
        self._go_on = partial(loop.add_reader, self.descriptor, self._pass_on, worker, loop)
        self._go_on()
        try:
            yield
        finally:
            loop.remove_reader(self.descriptor)

    def _pass_on(self, worker: StreamWriter, loop: asyncio.AbstractEventLoop) -> None:
        try:
            data = os.read(self.descriptor, _MOST)
        except OSError:  # the terminal is gone, or not ours to read
            data = b""
        worker.write(line(wire.Typed(data)))
        if not data:
            loop.remove_reader(self.descriptor)
