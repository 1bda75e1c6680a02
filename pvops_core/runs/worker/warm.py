"""A worker that stays: it has all that a run needs in memory, and makes each run in a copy of itself.

    python -m pvops_core.runs.worker warm

No run sees anything of another, and one that dies takes no other with it. Nothing can be typed at its guests.
"""

from __future__ import annotations

import gc
import os
import select
import signal
from typing import TYPE_CHECKING

from pvops_core.backends.keyboard import Keyboard
from pvops_core.backends.loading.loader import load_needed
from pvops_core.child.serving import lines_of_parent, tell_of_faults
from pvops_core.records import read
from pvops_core.runs import wire
from pvops_core.runs.worker.once import answer, messages

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Serve one request after the other, until the parent says no more."""
    send = messages(forks=True)
    tell_of_faults()
    for line in lines_of_parent():
        request = read(line, wire.Request)
        send(wire.WorkerPhase.LOADING)
        load_needed(
            request.cell.backend, request.plugins, request.without
        )  # what is imported now, no copy needs to import
        gc.freeze()
        pid = os.fork()
        if not pid:
            _serve(request, send)
        send(wire.Ended(_status(pid)))


def _serve(request: wire.Request, send: Callable[[wire.Message], None]) -> None:
    """The life of a copy."""
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what the parent says is not for plugins to read
        send(wire.Began(os.getpid()))
        send(answer(request, send, Keyboard(request.typed)))
        status = 0
    finally:
        os._exit(status)


def _status(pid: int) -> int:
    """How a copy has ended; if the parent goes first, the copy is ended, and so is this process."""
    process = os.pidfd_open(pid)
    ready, _, _ = select.select([0, process], [], [])
    os.close(process)
    if 0 in ready:  # it says nothing while a run goes on, but for its end
        os.kill(pid, signal.SIGKILL)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
