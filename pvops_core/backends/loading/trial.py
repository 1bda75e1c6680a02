"""Loads plugins in a child process first: one that hangs there, or ends the process, does not do it to the host.

The child says when it begins with a plugin and how that ended, so that the parent knows whom it waits for. A plugin
that went through and whose files have not changed since is not tried again.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from pvops_core.backends.finding.found import Found
from pvops_core.backends.loading.proven import Proven
from pvops_core.errors import PluginError, UsageError

LIMIT: Final = "PVOPS_PLUGIN_TIMEOUT"
"""Environment variable: seconds of wall time that loading one plugin may take; 0 for loading without a trial."""
LIMIT_S: Final = 10.0
START_S: Final = 60.0
"""Seconds that the child has to come to the first plugin."""
SETTLE_S: Final = 0.5
"""Seconds that threads which a plugin started at import have to end."""
_CHILD: Final = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from pvops_core.backends.loading import trial; trial.serve()"
)


def tried(plugins: Sequence[Found], environ: Mapping[str, str]) -> dict[Found, PluginError]:
    """Load plugins in a child process; what is wrong with those that do not load.

    Args:
        plugins: as they were found.
        environ: the environment, for the limit and the place of the notes on those that went through.

    Raises:
        UsageError: the limit is not a number of seconds.
    """
    limit = _limit(environ.get(LIMIT, ""))
    if not limit:
        return {}
    proven = Proven.of(environ)
    waiting = [found for found in plugins if not found.problem and found not in proven]
    errors: dict[Found, PluginError] = {}
    while waiting:
        verdicts = list(_run(waiting, limit))
        if not verdicts:
            break  # no child could be started: the host finds out for itself
        for found, error in zip(waiting, verdicts, strict=False):
            if error is None:
                proven.add(found)
            else:
                errors[found] = error
        waiting = waiting[len(verdicts) :]
    proven.keep()
    return errors


def _limit(text: str) -> float:
    try:
        limit = float(text or LIMIT_S)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < threading.TIMEOUT_MAX:
        raise UsageError(f"{LIMIT}: {text!r} is not a number of seconds")
    return limit


def _run(plugins: Sequence[Found], limit: float) -> Iterator[PluginError | None]:
    """The verdicts of one child, in order; after one that hung or ended the child there are no more."""
    reading, writing = os.pipe()
    command = [sys.executable, "-c", _CHILD, json.dumps(sys.path), str(writing)]
    try:
        child = subprocess.Popen(  # noqa: S603  this interpreter
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=(writing,), start_new_session=True,
        )  # fmt: skip
    except OSError:
        os.close(reading)
        return
    finally:
        os.close(writing)
    with os.fdopen(reading, "rb") as answers, child:
        try:
            yield from _verdicts(plugins, limit, _Lines(answers.fileno()), child)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def _verdicts(
    plugins: Sequence[Found], limit: float, lines: _Lines, child: subprocess.Popen[bytes]
) -> Iterator[PluginError | None]:
    if child.stdin is None:
        raise TypeError("the child was started without a pipe to it")
    with contextlib.suppress(BrokenPipeError):  # it died: its end tells more
        child.stdin.write(json.dumps([_packed(found) for found in plugins]).encode() + b"\n")
        child.stdin.close()
    try:
        started = lines.next(START_S)
    except TimeoutError:
        started = None
    if started is None:  # it did not come to the first plugin, so none is to blame
        return
    for found in plugins:
        try:
            line = lines.next(limit)
        except TimeoutError:
            yield found.error(f"loading it did not come to an end within {limit:g} s; {_advice(found)}")
            return
        if line is None:
            yield found.error(f"loading it ended the process: {_how(child.wait())}; {_advice(found)}")
            return
        answer = json.loads(line)
        yield PluginError(**answer) if answer else None


def _advice(found: Found) -> str:
    return f"to leave it out: PVOPS_DISABLE_PLUGINS={found.distribution}"


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


class _Lines:
    """Lines from a pipe; no wait for more of one is longer than a limit."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._rest = b""

    def next(self, limit: float) -> bytes | None:
        """The next line; None at the end. Raises TimeoutError."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._number, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(limit):
                    raise TimeoutError
                block = os.read(self._number, 1 << 16)
                if not block:
                    return None
                self._rest += block
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def _packed(found: Found) -> dict[str, Any]:
    packed = attrs.asdict(found)
    return packed | {"file": found.file and str(found.file), "folders": [str(folder) for folder in found.folders]}


def _unpacked(packed: Mapping[str, Any]) -> Found:
    file, folders = packed["file"], tuple(Path(folder) for folder in packed["folders"])
    return Found(**{**packed, "file": Path(file) if file else None, "folders": folders})


def serve() -> None:
    """The child: load the plugins named on standard input, and say how each went on the pipe that was given."""
    say = _speaker(int(sys.argv[2]))
    plugins = [_unpacked(packed) for packed in json.loads(sys.stdin.buffer.readline())]
    from pvops_core.backends.loading.loader import load  # noqa: PLC0415  which imports this module

    say({"begins": len(plugins)})
    for found in plugins:
        before = set(threading.enumerate())
        try:
            load(found)
            _quiet(found, before)
        except PluginError as error:
            say(attrs.asdict(error))
        else:
            say({})
    os._exit(0)  # what a plugin does at exit is no part of loading it


def _quiet(found: Found, before: set[threading.Thread]) -> None:
    """Refuse a plugin that leaves threads which would keep the host from ending."""
    left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    for thread in left:
        thread.join(SETTLE_S)
    if names := ", ".join(thread.name for thread in left if thread.is_alive()):
        raise found.error(f"loading it left threads running: {names}")


def _speaker(number: int) -> Callable[[Mapping[str, Any]], None]:
    pid = os.getpid()

    def say(answer: Mapping[str, Any]) -> None:
        if os.getpid() == pid:  # and not a fork that a plugin made
            os.write(number, json.dumps(answer).encode() + b"\n")

    return say
