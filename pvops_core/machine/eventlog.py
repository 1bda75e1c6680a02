"""What happened in a run, in order, stamped with virtual time, with one hash over all of it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pvops_core.machine.clock import Clock

Value = int | str | bytes


@attrs.frozen
class Event:
    """One thing that happened.

    Attributes:
        ns: virtual time in nanoseconds.
        kind: what happened, a short name.
        vcpu: index of the vCPU it happened on, if on one.
        fields: its particulars, sorted by name.
    """

    ns: int
    kind: str
    vcpu: int | None
    fields: tuple[tuple[str, Value], ...]

    def encode(self) -> bytes:
        """The one byte form that is hashed: every value with its type and length, so that no two events look alike."""
        parts: list[Value] = [self.ns, self.kind, -1 if self.vcpu is None else self.vcpu]
        for name, value in self.fields:
            parts += (name, value)
        return b"".join(map(_encode, parts)) + b"\n"


def _encode(value: Value) -> bytes:
    if isinstance(value, int):
        tag, data = b"i", b"%d" % value
    elif isinstance(value, str):
        tag, data = b"s", value.encode("utf-8", "surrogatepass")
    else:
        tag, data = b"b", bytes(value)
    return b"%s%d:%s" % (tag, len(data), data)


class EventLog:
    """All events of a run so far."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: list[Event] = []
        self._hash = hashlib.sha256()
        self._hashed = 0

    def record(self, kind: str, vcpu: int | None = None, **fields: Value) -> None:
        """Add an event that happens now."""
        self._events.append(Event(self._clock.ns, kind, vcpu, tuple(sorted(fields.items()))))

    @property
    def events(self) -> tuple[Event, ...]:
        """The events in order."""
        return tuple(self._events)

    @property
    def sha256(self) -> str:
        """Hash over all events so far, in hex."""
        for event in self._events[self._hashed :]:
            self._hash.update(event.encode())
        self._hashed = len(self._events)
        return self._hash.hexdigest()

    def save(self) -> object:
        """State for a snapshot."""
        return tuple(self._events)

    def load(self, state: object) -> None:
        """Go back to a saved state."""
        assert isinstance(state, tuple)
        self._events = list(state)
        self._hash = hashlib.sha256()
        self._hashed = 0
