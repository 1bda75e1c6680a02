"""What happened in a run, in order, stamped with virtual time, with one hash over all of it.

A long run has millions of events. Only the newest are kept as they came; the others are hashed and packed, a hundred
times smaller than as objects where they are alike, as those of a guest that is stuck are. What is packed is what was
hashed: the byte form of each has all that there is to it.

The hash is a chain: the link of a pack is the SHA-256 of the link before it (at first 32 zeros) and the pack's bytes,
and the hash over all events is the link that the newest would give. So 32 bytes are all of it that a saved state needs,
where a running hash object can be kept by nobody.
"""

from __future__ import annotations

import hashlib
import re
from functools import reduce
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs
import lz4.block

from pvops_core.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pvops_core.machine.run.clock import Clock

Value = int | str | bytes
_Raw = tuple[int, str, int | None, dict[str, Value]]

PACKED: Final = 1 << 13
"""Events in a pack, upon which the hash depends."""
_FIRST_LINK: Final = bytes(32)


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

    def __getitem__(self, name: str) -> Value:
        """A particular by its name; KeyError names those that there are."""
        for field, value in self.fields:
            if field == name:
                return value
        # Names in the error: who asks for a field that is not there has most often misspelt it.
        raise KeyError(f"{name!r}; {self.kind} has {', '.join(field for field, _value in self.fields) or 'none'}")


def _event(raw: _Raw) -> Event:
    ns, kind, vcpu, fields = raw
    return Event(ns, kind, vcpu, tuple(sorted(fields.items())))


_FORMATS: dict[tuple[str, ...], tuple[bytes, tuple[str, ...]]] = {}


def _format(kind: str, names: tuple[str, ...]) -> tuple[bytes, tuple[str, ...]]:
    """How events of a kind with fields of these names, all numbers, are written: a format, and the fields in order."""
    order = tuple(sorted(names))
    parts = [b"%d;", _text(kind), b"%d;"]
    for name in order:
        parts += (_text(name), b"%d;")
    # A kind or a field may have a percent sign in its name; between them the places for numbers stay.
    escaped = (part if part == b"%d;" else part.replace(b"%", b"%%") for part in parts)
    return b"".join(escaped) + b"\n", order


def _form(raw: _Raw) -> bytes:
    """The one byte form that is hashed: every value with its type, so that no two events look alike."""
    ns, kind, vcpu, fields = raw
    # Field names in the order of the call: the usual event finds its format without sorting.
    key = (kind, *fields)
    found = _FORMATS.get(key)
    if found is None:
        found = _FORMATS[key] = _format(kind, key[1:])
    number = -1 if vcpu is None else vcpu
    try:
        return found[0] % (ns, number, *[fields[name] for name in found[1]])
    except TypeError:  # a field that is no number
        # Text or bytes among the fields are rare, so the quick form is tried and not asked for.
        parts: list[Value] = [ns, kind, number]
        for name in found[1]:
            parts += (name, fields[name])
        return b"".join(map(_encode, parts)) + b"\n"


def _encode(value: Value) -> bytes:
    if isinstance(value, int):
        return b"%d;" % value
    return _text(value) if isinstance(value, str) else b"b%d:%s" % (len(value), value)


def _text(text: str) -> bytes:
    # Names from a guest's memory may be no text; every surrogate still has its one byte form.
    data = text.encode("utf-8", "surrogatepass")
    return b"s%d:%s" % (len(data), data)


_PART: Final = re.compile(rb"(-?[0-9]+);|([sb])([0-9]+):|\n")
"""What the byte form is made of: numbers, text or bytes with their length in front, and the end of an event."""


def _read(data: bytes) -> Iterator[Event]:
    """The events of a byte form."""
    parts: list[Value] = []
    at = 0
    while at < len(data):
        found = _PART.match(data, at)
        if found is None:
            # Packs come from files too, so that nothing about them is taken for granted.
            raise MachineError(f"a saved event log has no event at byte {at} of a pack")
        number, kind, length = found.groups()
        at = found.end()
        if number is not None:
            parts.append(int(number))
        elif kind is None:
            yield _of_parts(parts)
            parts = []
        else:
            text = data[at : at + int(length)]
            at += len(text)
            parts.append(text if kind == b"b" else text.decode("utf-8", "surrogatepass"))


def _of_parts(parts: list[Value]) -> Event:
    try:
        ns, kind, vcpu, *fields = parts
        pairs = tuple(zip(fields[::2], fields[1::2], strict=True))
    except ValueError:
        raise MachineError(f"a saved event log has an event of {len(parts)} parts") from None
    return Event(ns, kind, None if vcpu == -1 else vcpu, pairs)  # type: ignore[arg-type] # as _form wrote them


class LogState(NamedTuple):
    """The events of a snapshot.

    Attributes:
        packs: whole packs.
        begun: the byte form of the first events after them, where the log has gone on from a file.
        recent: the newest, as they came.
        link: of the last whole pack.
    """

    packs: tuple[bytes, ...]
    begun: Begun
    recent: tuple[_Raw, ...]
    link: bytes


class Begun(NamedTuple):
    """How many events, and their byte form."""

    events: int
    data: bytes


class WrittenLog(NamedTuple):
    """The same in a file: ``begun`` is all that is in no whole pack."""

    packs: tuple[bytes, ...]
    begun: Begun
    link: bytes


_NOTHING: Final = Begun(0, b"")
_MOST_COMPRESSED: Final = 255
"""Bytes that lz4 can make of one (its block format: a length byte more for each 255)."""


class EventLog:
    """All events of a run so far; iterating over it gives them in order."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._packs: list[bytes] = []
        self._begun = _NOTHING
        self._recent: list[_Raw] = []
        self._room = PACKED
        self._link = _FIRST_LINK
        self._links = {_FIRST_LINK}  # of saved states, which need not be gone through again

    def record(self, kind: str, vcpu: int | None = None, **fields: Value) -> None:
        """Add an event that happens now."""
        recent = self._recent
        recent.append((self._clock.ns, kind, vcpu, fields))
        # Counted by what is in the present pack, also of events that came from a file in byte form.
        if len(recent) == self._room:
            self._pack()

    def _pack(self) -> None:
        data = self._unpacked()
        self._link = _linked(self._link, data)
        self._packs.append(lz4.block.compress(data))
        self._begin(_NOTHING, ())

    def _begin(self, begun: Begun, recent: Iterable[_Raw]) -> None:
        self._begun, self._room = begun, PACKED - begun.events
        self._recent[:] = recent

    def _unpacked(self) -> bytes:
        """The byte form of all that is in no whole pack."""
        return self._begun.data + b"".join(map(_form, self._recent))

    def __len__(self) -> int:
        return len(self._packs) * PACKED + self._begun.events + len(self._recent)

    def __iter__(self) -> Iterator[Event]:
        return self._from(0)

    def _from(self, first: int) -> Iterator[Event]:
        """The events from a number on."""
        skipped, within = divmod(first, PACKED)
        for pack in self._packs[skipped:]:
            yield from islice(_read(lz4.block.decompress(pack)), within, None)
            within = 0
        at_hand = max(first - len(self._packs) * PACKED, 0)
        if at_hand < self._begun.events:
            yield from islice(_read(self._begun.data), at_hand, None)
        yield from map(_event, self._recent[max(at_hand - self._begun.events, 0) :])

    @property
    def events(self) -> tuple[Event, ...]:
        """The events in order."""
        return tuple(self)

    def since(self, count: int) -> tuple[Event, ...]:
        """All but the first so many."""
        return tuple(self._from(count))

    @property
    def sha256(self) -> str:
        """Hash over all events so far, in hex."""
        return _linked(self._link, self._unpacked()).hex()

    def save(self) -> LogState:
        """State for a snapshot."""
        self._links.add(self._link)
        return LogState(tuple(self._packs), self._begun, tuple(self._recent), self._link)

    def load(self, state: LogState) -> None:
        """Go back to a saved state.

        Raises:
            MachineError: it is another log's, and its packs are not those that its link is of.
        """
        packs, begun, recent, link = state
        if link not in self._links:
            # Verified once: a snapshot is loaded thousands of times, and its packs never change.
            found = reduce(_linked, map(_decompressed, packs), _FIRST_LINK)
            if found != link:
                raise MachineError(f"a saved event log has the hash {found.hex()} and says {link.hex()}")
            self._links.add(link)
        self._packs, self._link = list(packs), link
        self._begin(begun, recent)

    def written(self, state: LogState) -> WrittenLog:
        """A state as it is in a file."""
        begun, recent = state.begun, state.recent
        data = begun.data + b"".join(map(_form, recent))
        return WrittenLog(state.packs, Begun(begun.events + len(recent), data), state.link)

    def read(self, written: WrittenLog) -> LogState:
        """The state that a file has.

        Raises:
            MachineError: it has none.
        """
        if not 0 <= written.begun.events < PACKED:
            raise MachineError(f"a saved event log has {written.begun.events} events that are in no pack")
        return LogState(written.packs, written.begun, (), written.link)


def _linked(link: bytes, data: bytes) -> bytes:
    return hashlib.sha256(link + data).digest()


def _decompressed(pack: bytes) -> bytes:
    """A pack's byte form; MachineError if it is none, or says that it is more than it can be."""
    try:
        # The length stands in front of lz4's block: checked before that much memory is asked for.
        if int.from_bytes(pack[:4], "little") > len(pack) * _MOST_COMPRESSED:
            raise MachineError("a saved event log has a pack that says it is too long")
        data: bytes = lz4.block.decompress(pack)
    except (lz4.block.LZ4BlockError, ValueError) as failure:
        raise MachineError(f"a saved event log has a pack that cannot be read: {failure}") from failure
    return data
