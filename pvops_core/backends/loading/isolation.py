"""Keeps what a plugin's code does at import from reaching the host."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.backends.blame import from_outside, handlers, sentence
from pvops_core.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvops_core.backends.finding.found import Found

_TIMERS: Final = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_NEAR_S: Final = 0.05
"""A timer of the host's that stands so near to where it should is as it was."""


@contextlib.contextmanager
def isolated(found: Found) -> Iterator[None]:
    """Run somebody's code so that only PluginError comes out: no SystemExit, no KeyboardInterrupt of its own.

    A real interrupt from the terminal still ends the host, and what a signal handler of the host's raises goes on. What
    the code prints, at whatever level, goes to standard error, so that a document on standard output stays one. What it
    changes of the process is put back: environment, current folder, signal handlers, timers, standard streams, warning
    filters, recursion limit, and what it took off the import path.
    """
    ours = handlers()
    with _put_back(), _standard_output(), contextlib.redirect_stdout(sys.stderr):
        try:
            yield
        except PluginError as error:
            raise attrs.evolve(
                error, distribution=found.distribution, version=found.version, entry_point=found.entry_point
            ) from error.__cause__
        except BaseException as error:
            if from_outside(error, ours):
                raise
            raise found.error(f"loading it raised {sentence(error)}") from error


@contextlib.contextmanager
def _standard_output() -> Iterator[None]:
    """While entered, file descriptor 1 is standard error."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    try:
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # one of them is closed: there is nothing to write to
        yield
        return
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def _put_back() -> Iterator[None]:
    """Leave the process as it was."""
    environ, folder, path, limit = dict(os.environ), _here(), list(sys.path), sys.getrecursionlimit()
    streams = sys.stdin, sys.stdout, sys.stderr, sys.excepthook
    kept = {number: signal.getsignal(number) for number in signal.valid_signals()}
    timers, begun = [signal.getitimer(timer) for timer in _TIMERS], time.monotonic()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        sys.setrecursionlimit(limit)
        sys.stdin, sys.stdout, sys.stderr, sys.excepthook = streams
        sys.path[:] = [*(place for place in sys.path if place not in path), *path]
        if folder is not None:
            os.fchdir(folder)
            os.close(folder)
        for name in os.environ.keys() - environ.keys():
            del os.environ[name]
        os.environ.update(environ)
        if threading.current_thread() is threading.main_thread():
            _timers_back(timers, time.monotonic() - begun)
            for number, handler in kept.items():
                if handler is not None and signal.getsignal(number) is not handler:
                    signal.signal(number, handler)


def _timers_back(timers: list[tuple[float, float]], passed: float) -> None:
    """Timers, alarms among them, run on as if nobody had set them meanwhile."""
    for timer, (left, interval) in zip(_TIMERS, timers, strict=True):
        now, now_interval = signal.getitimer(timer)
        due = max(left - passed, 1e-6) if left and timer == signal.ITIMER_REAL else left
        if bool(now) != bool(left) or now_interval != interval or abs(now - due) > _NEAR_S:
            signal.setitimer(timer, due, interval)


def _here() -> int | None:
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # it was deleted: there is no way back to it
        return None
