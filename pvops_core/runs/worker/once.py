"""The child process: reads one request on standard input, runs it, answers on standard output.

    python -m pvops_core.runs.worker once

Whatever a plugin or a library prints goes to standard error; the answer has a pipe of its own.
"""

from __future__ import annotations

import errno
import sys
import threading
from typing import TYPE_CHECKING

from pvops_core.backends.keyboard import Keyboard, Replay
from pvops_core.child.serving import lines_of_parent, take_stdout, tell_of_faults
from pvops_core.errors import HostMemoryError, ImageError, UsageError
from pvops_core.records import read
from pvops_core.runs import wire
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.runs.worker.debug import prompt
from pvops_core.runs.worker.observe import observe
from pvops_core.runs.worker.parentpipe import listen
from pvops_core.runs.worker.pluginoutput import PluginOutput
from pvops_core.runs.worker.runend import RunEnd

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Serve one request; exit status 0 whenever an observation was sent."""
    send = messages()
    tell_of_faults()
    lines = lines_of_parent()
    request = read(next(lines), wire.Request)
    keyboard = Keyboard(request.typed) if request.replayed is None else Replay(request.replayed)
    keyboard.heard = send
    if request.attended:
        keyboard.listen()
    # A daemon: it reads for as long as the parent lives, and must not keep this process from its end.
    threading.Thread(target=listen, args=(lines, keyboard), daemon=True).start()
    send(answer(request, send, keyboard))


def answer(request: wire.Request, send: Callable[[wire.Message], None], keyboard: Keyboard) -> Observation:
    """Run the request, whatever is raised."""
    output = PluginOutput(send)
    prompt.install(send, output)
    found = _answer(request, send, keyboard, output)
    output.close()
    save_coverage()
    return found


def _answer(
    request: wire.Request, send: Callable[[wire.Message], None], keyboard: Keyboard, output: PluginOutput
) -> Observation:
    try:
        return observe(request, send, keyboard, output)
    except (ImageError, UsageError) as error:
        return Observation(request.cell, Outcome.UNSUPPORTED, reason=str(error))
    except HostMemoryError as error:
        return _refused(request, error)
    except (MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENOMEM:
            return _failed(request, error)
        return _refused(request, HostMemoryError.of(f"memory to a run whose guest has {request.cell.memory >> 20} MiB"))
    except BaseException as error:  # noqa: BLE001 - a plugin may raise anything; it is this cell's result
        return _failed(request, error)


def _refused(request: wire.Request, error: HostMemoryError) -> Observation:
    return Observation(request.cell, Outcome.MEMORY, reason=str(error))


def _failed(request: wire.Request, error: BaseException) -> Observation:
    ending = RunEnd.of_error(error)
    return Observation(request.cell, ending.outcome, reason=ending.reason, detail=ending.detail)


def save_coverage() -> None:
    """Have coverage.py, where it measures this process, write down what it has: the process will be ended, not left."""
    if "coverage" in sys.modules and (measured := sys.modules["coverage"].Coverage.current()) is not None:
        measured.stop()
        measured.save()


def messages(*, forks: bool = False) -> Callable[[wire.Message], None]:
    """The pipe to the parent, for messages; see ``take_stdout``."""
    send = take_stdout(forks=forks)
    return lambda message: send(wire.encode(message))
