"""Keeps what a plugin's code does at import from reaching the host."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import warnings
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from pvops_core.backends.found import Found


@contextlib.contextmanager
def isolated(found: Found) -> Iterator[None]:
    """Run somebody's code so that only PluginError comes out: no SystemExit, no KeyboardInterrupt of its own.

    A real interrupt from the terminal still ends the host. What the code prints goes to standard error, so that a
    document on standard output stays one. What it changes of the process is put back: environment, current folder,
    signal handlers, standard streams, warning filters, recursion limit, and what it took off the import path.
    """
    pressed = threading.Event()
    with _interrupts(pressed), _put_back(), contextlib.redirect_stdout(sys.stderr):
        try:
            yield
        except PluginError as error:
            raise attrs.evolve(
                error, distribution=found.distribution, version=found.version, entry_point=found.entry_point
            ) from error.__cause__
        except BaseException as error:
            if pressed.is_set():
                raise
            raise found.error(_sentence(error)) from error


def _sentence(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  its own __str__ is somebody's code too
        text = "(an error that cannot say what it is)"
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"loading it raised {what}"


@contextlib.contextmanager
def _interrupts(pressed: threading.Event) -> Iterator[None]:
    """Note whether SIGINT arrives, and treat it as before."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        pressed.set()
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _put_back() -> Iterator[None]:
    """Leave the process as it was."""
    environ, folder, path, limit = dict(os.environ), _here(), list(sys.path), sys.getrecursionlimit()
    streams = sys.stdin, sys.stdout, sys.stderr, sys.excepthook
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
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
            for number, handler in handlers.items():
                if handler is not None and signal.getsignal(number) is not handler:
                    signal.signal(number, handler)


def _here() -> int | None:
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # it was deleted: there is no way back to it
        return None
