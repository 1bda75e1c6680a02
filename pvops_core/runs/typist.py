"""Passes on to a worker what is typed at this process while the guest runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from pvops_core.runs import wire

if TYPE_CHECKING:
    from asyncio import StreamWriter

_MOST = 4096


@attrs.frozen
class Typist:
    """Whoever types at a file descriptor that can be waited for: a terminal, a pipe, a socket."""

    descriptor: int

    @contextmanager
    def at(self, worker: StreamWriter) -> Iterator[None]:
        """While entered, what is typed goes to the worker."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self.descriptor, self._pass_on, worker, loop)
        try:
            yield
        finally:
            loop.remove_reader(self.descriptor)

    def _pass_on(self, worker: StreamWriter, loop: asyncio.AbstractEventLoop) -> None:
        try:
            data = os.read(self.descriptor, _MOST)
        except OSError:  # the terminal is gone, or not ours to read
            data = b""
        worker.write(wire.encode_typed(data))
        if not data:
            loop.remove_reader(self.descriptor)
