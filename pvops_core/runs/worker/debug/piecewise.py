"""A run that a debugger may come to, in the process that makes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from pvops_core.runs import wire
from pvops_core.runs.worker.debug.asked import with_prompts
from pvops_core.switchboard.speaking import Speaker

if TYPE_CHECKING:
    from pvops_core.machine import Stop, Vcpu
    from pvops_core.runs.worker.pluginoutput import PluginOutput
    from pvops_core.session import Session

Runner = Callable[["PiecewiseRun"], "Stop"]
"""Makes a run, perhaps in pieces."""


class PiecewiseRun:
    """Runs a session in as many pieces as somebody likes, which have its limits together.

    Args:
        session: the session.
        request: says the limits.
    """

    def __init__(self, session: Session, request: wire.Request) -> None:
        self._session = session
        self._clock = session.machine.clock
        self._until_ns = None if request.max_ns is None else self._clock.ns + request.max_ns
        self._seconds = request.max_seconds

    def __call__(self, stepping: Collection[Vcpu] = ()) -> Stop:
        """A piece: to the end, to a pause, or to a step of one of some vCPUs; errors as of ``Session.run``."""
        began = time.monotonic()
        left_ns = None if self._until_ns is None else max(0, self._until_ns - self._clock.ns)
        seconds = None if self._seconds is None else max(0.0, self._seconds)
        try:
            return self._session.run(max_ns=left_ns, max_seconds=seconds, step=stepping)
        finally:
            if self._seconds is not None:
                self._seconds -= time.monotonic() - began


@contextmanager
def runner(
    session: Session, request: wire.Request, send: Callable[[wire.Message], None], output: PluginOutput | None
) -> Iterator[Runner]:
    """What makes the run of a request: in one piece, unless a debugger may come.

    Raises:
        UsageError: nobody can listen where it is to come to.
    """
    if request.gdb is None:
        yield partial(with_prompts, session, send) if request.attended else lambda run: run()
        return
    from pvops_core.gdb.debugger import Debugger  # noqa: PLC0415 - seldom wanted

    def say(text: str) -> None:
        if output is not None:
            output.say("stderr", Speaker("gdb"), text)

    with Debugger(session, request.gdb, say, lambda stands: send(wire.Standing(stands))) as debugger:
        yield debugger.run
