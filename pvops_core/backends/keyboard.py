"""What is typed at a guest's console, on its way from whoever types to the platform's device."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

_LOOK_S = 0.05


class Keyboard:
    """Bytes put in from any thread, and taken by the run between two slices.

    Bytes that are there before the run begins arrive at virtual time 0, so they are part of what decides the run.
    Those that come later arrive when they come; the event log says when that was.

    Args:
        typed: what has been typed already.
    """

    def __init__(self, typed: bytes = b"") -> None:
        self._typed = bytearray(typed)
        self._changed = threading.Condition()
        self._in_use = False

    @property
    def in_use(self) -> bool:
        """Somebody may still type."""
        return self._in_use

    def listen(self) -> None:
        """From now on somebody may type, until ``end``."""
        self._in_use = True

    def type(self, data: bytes) -> None:
        """Put bytes in."""
        with self._changed:
            self._typed += data
            self._changed.notify()

    def end(self) -> None:
        """Nobody types any more."""
        with self._changed:
            self._in_use = False
            self._changed.notify()

    def take(self) -> bytes:
        """All that was typed and not yet taken."""
        if not self._typed:
            return b""
        with self._changed:
            taken = bytes(self._typed)
            self._typed.clear()
        return taken

    def wait(self, given_up: Callable[[], bool], seconds: float = math.inf) -> bool:
        """Wait until something is typed; False if nothing will be, or ``given_up`` says so, or after some seconds."""
        with self._changed:
            while not self._typed and self._in_use and seconds > 0 and not given_up():
                self._changed.wait(min(_LOOK_S, seconds))
                seconds -= _LOOK_S
            return bool(self._typed)
