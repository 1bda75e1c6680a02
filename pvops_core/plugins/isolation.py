"""Keeps what a plugin's code does at import from reaching the host."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from typing import TYPE_CHECKING

import attrs

from pvops_core.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from pvops_core.plugins.found import Found


@contextlib.contextmanager
def isolated(found: Found) -> Iterator[None]:
    """Run somebody's code so that only PluginError comes out: no SystemExit, no KeyboardInterrupt of its own.

    A real interrupt from the terminal still ends the host. What the code prints goes to standard error, so that a
    document on standard output stays one.
    """
    pressed = threading.Event()
    with _interrupts(pressed), contextlib.redirect_stdout(sys.stderr):
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
