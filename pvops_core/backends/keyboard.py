"""What is typed at a guest's console, on its way from whoever types to the platform's device."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import NamedTuple

_LOOK_S = 0.05


class Look(NamedTuple):
    """A moment at which a run looks for what was typed: all that it depends on is what the guest did until then.

    Attributes:
        ns: virtual time.
        number: how many looks there were before it at that time.
    """

    ns: int
    number: int = 0


class Stroke(NamedTuple):
    """What a run has taken at one look.

    Attributes:
        look: when.
        typed: the bytes.
        leaving: why whoever types ends the run there; empty if it goes on.
        asking: they want the run to stand there, for a prompt.
    """

    look: Look
    typed: bytes
    leaving: str = ""
    asking: bool = False


class Keyboard:
    """Bytes put in from any thread, and taken by the run between two slices.

    Bytes that are there before the run begins arrive at virtual time 0, so they are part of what decides the run.
    Those that come later arrive when they come; the event log says when that was.

    Args:
        typed: what has been typed already.

    Attributes:
        heard: told of each stroke that the run has taken.
        sleeper: told that the guest sleeps at one virtual time until another; gives the time at which it is awake.
    """

    def __init__(self, typed: bytes = b"") -> None:
        self.heard: Callable[[Stroke], None] = lambda _stroke: None
        self.sleeper: Callable[[int, int], int] = lambda _now, until: until
        self._typed = bytearray(typed)
        self._leaving = ""
        self._asking = False
        self._changed = threading.Condition()
        self._in_use = False
        self._next = Look(-1)

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

    def leave(self, why: str) -> None:
        """Whoever types wants the run to end when it has taken what was typed so far."""
        with self._changed:
            self._leaving = self._leaving or why
            self._changed.notify()

    def ask(self) -> None:
        """Whoever types wants the run to stand, for a prompt: it ends for the reason "asked"."""
        with self._changed:
            self._asking = True
            self._changed.notify()

    def end(self) -> None:
        """Nobody types any more."""
        with self._changed:
            self._in_use = False
            self._changed.notify()

    def take(self, ns: int) -> Stroke | None:
        """All that was typed and not yet taken, if anything; to be asked at each look, at virtual time ``ns``."""
        look = self._coming(ns)
        self._next = Look(ns, look.number + 1)
        if not self._waits(look):
            return None
        with self._changed:
            stroke = self._taken(look)
        self.heard(stroke)
        return stroke

    def wait(self, ns: int, given_up: Callable[[], bool], seconds: float = math.inf) -> bool:
        """Wait until something is typed; False if nothing will be, or ``given_up`` says so, or after some seconds.

        Args:
            ns: virtual time, which stands still meanwhile.
            given_up: asked now and then.
            seconds: of the host's time.
        """
        look = self._coming(ns)
        with self._changed:
            while not self._waits(look) and self._in_use and seconds > 0 and not given_up():
                self._changed.wait_for(lambda: self._waits(look) or not self._in_use, min(_LOOK_S, seconds))
                seconds -= _LOOK_S
            return self._waits(look)

    def sleep(self, now: int, until: int) -> int:
        """Every vCPU sleeps at virtual time ``now`` until another: the time to go on to, earlier where a key comes."""
        return self.sleeper(now, until)

    def _coming(self, ns: int) -> Look:
        return self._next if ns == self._next.ns else Look(ns)

    def _waits(self, look: Look) -> bool:  # noqa: ARG002 - it matters where strokes come from a record
        return bool(self._typed or self._leaving or self._asking)

    def _taken(self, look: Look) -> Stroke:
        stroke = Stroke(look, bytes(self._typed), self._leaving, self._asking)
        self._typed.clear()
        self._leaving, self._asking = "", False
        return stroke


class Replay(Keyboard):
    """Types what was typed in another run of the same guest, at the looks at which that run took it.

    Args:
        strokes: what was taken, in order.
    """

    def __init__(self, strokes: tuple[Stroke, ...]) -> None:
        super().__init__()
        self._strokes = list(reversed(strokes))

    def sleep(self, now: int, until: int) -> int:
        """No longer than to the next stroke, which woke the run that was recorded."""
        coming = self._strokes[-1].look.ns if self._strokes else until
        return min(until, coming) if coming > now else until

    def _waits(self, look: Look) -> bool:
        return bool(self._strokes) and self._strokes[-1].look <= look

    def _taken(self, look: Look) -> Stroke:
        stroke = self._strokes.pop()
        return stroke._replace(look=look)
