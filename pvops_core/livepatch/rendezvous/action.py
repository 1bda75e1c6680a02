"""What happens in the quiet zone: text is rewritten and hooks are run, wholly or not at all.

Text is written in as few transactions as the hooks allow: none runs between two of them without need, so an action
without hooks is one. If anything fails afterwards, what was written is written back. Only one thing ends halfway, as in
Xen: a REPLACE whose payload then refuses leaves everything reverted. Source: apply_payload, revert_payload and
livepatch_do_action of xen/common/livepatch.c.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

import attrs

from pvops_core.livepatch.errors import LivepatchError, PartialError
from pvops_core.livepatch.payload.model import Command, HookPhase, Record
from pvops_core.patching.poke import Poke

if TYPE_CHECKING:
    from pvops_core.livepatch.control.registry import Work

BY_HOOK = b""
"""What stands for the saved bytes of a function that an action hook says it has applied."""


@attrs.define(eq=False)
class ActRefusedError(LivepatchError):
    """The payload itself does not want the action: an expectation is not met, or its action hook says so."""


@attrs.define(eq=False)
class AbortedError(LivepatchError):
    """A REPLACE that ended after its reverts.

    Attributes:
        reverted: the payloads that were reverted, in that order; they stay so.
    """

    reverted: tuple[Record, ...] = ()


class Zone(Protocol):
    """The guest while it is quiet."""

    def read(self, address: int, length: int) -> bytes:
        """Bytes of guest text."""

    def write(self, pokes: Sequence[Poke], by: str) -> None:
        """Write guest text in one transaction."""

    def call(self, record: Record, phase: HookPhase) -> int:
        """Run the hooks of a phase, in order, as guest code; what the last returned."""

    def publish(self, record: Record) -> None:
        """Show the guest which functions of a payload are applied, and its state."""

    def applied_flags(self, record: Record) -> Sequence[bool]:
        """Which functions are applied, as the guest has it since an action hook ran."""

    def warn(self, message: str) -> None:
        """Note something for a person to read."""


class Overlay:
    """Guest text as it is going to be.

    Args:
        read: gives bytes of guest text as it is.
    """

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self._read = read
        self._bytes: dict[int, int] = {}
        self._expected: dict[int, int] = {}

    def read(self, address: int, length: int) -> bytes:
        """Bytes as they are going to be."""
        found = bytearray(self._read(address, length))
        for place in range(address, address + length):
            # Byte by byte: writes may overlap in any way.
            if place in self._bytes:
                found[place - address] = self._bytes[place]
        return bytes(found)

    def write(self, address: int, data: bytes, expected: bytes) -> None:
        """Change bytes, where those expected are, as many, or are going to be."""
        for place, old, new in zip(range(address, address + len(data)), expected, data, strict=True):
            # The first one's expectation holds: later ones see what this journal wrote itself.
            self._expected.setdefault(place, old)
            self._bytes[place] = new

    def pokes(self) -> list[Poke]:
        """The writes that make it so, those that change nothing left out."""
        # Neighbours are one poke: places minus their ranks are equal along a run.
        runs = groupby(enumerate(sorted(self._bytes)), lambda pair: pair[1] - pair[0])
        found = []
        for _, run in runs:
            places = [place for _, place in run]
            old = bytes(self._expected[place] for place in places)
            new = bytes(self._bytes[place] for place in places)
            # Text that ends as it began is not touched.
            if new != old:
                found.append(Poke(places[0], old, new))
        return found


class Journal:
    """Text that is being changed in a quiet zone, and the way back."""

    def __init__(self, zone: Zone, by: str) -> None:
        self._zone = zone
        self._by = by
        self._done: list[list[Poke]] = []
        self.text = Overlay(zone.read)

    def flush(self) -> None:
        """Write what has been changed so far."""
        pokes = self.text.pokes()
        # An empty transaction would still be noted.
        if pokes:
            self._zone.write(pokes, self._by)
            self._done.append(pokes)
        # What follows is read from the guest again, hooks included.
        self.text = Overlay(self._zone.read)

    def commit(self) -> None:
        """Write what has been changed so far, and keep it whatever comes."""
        self.flush()
        # A REPLACE that was aborted keeps its reverts, as Xen's does.
        self._done.clear()

    def call(self, record: Record, phase: HookPhase) -> int:
        """Run the hooks of a phase, which find the text as it is by then."""
        if not record.payload.hooks.of(phase):
            return 0
        # The hook must find the text as the action has it so far.
        self.flush()
        # And the flags, which it may change.
        self._zone.publish(record)
        return self._zone.call(record, phase)

    def undo(self) -> None:
        """Write back everything.

        Raises:
            PartialError: that failed as well: the text is neither old nor new.
        """
        self.text = Overlay(self._zone.read)
        while self._done:
            pokes = self._done.pop()
            # The last written is taken back first.
            back = [Poke(poke.address, poke.new, poke.expected) for poke in reversed(pokes)]
            try:
                self._zone.write(back, f"undo {self._by}")
            except Exception as error:
                # Neither applied nor reverted: Xen panics too.
                raise PartialError(f"partially applied payload: text could not be written back: {error}") from error


def perform(work: Work, applied: Sequence[Record], zone: Zone) -> None:
    """livepatch_do_action(): do a scheduled action.

    Args:
        work: the action.
        applied: the payloads in force, the last applied last.
        zone: the guest, quiet.

    Raises:
        LivepatchError: an expectation is not met, or a hook failed; text and payloads are as before.
        AbortedError: the same in a REPLACE that had reverted payloads by then; those stay reverted.
        PartialError: a payload would be left partially applied, which nothing can go on from.
        BaseException: what the zone raised; text and payloads are as before.
    """
    record = work.record
    journal = Journal(zone, f"livepatch {work.command.name.lower()} {record.name}")
    touched = [record, *applied]
    # Flags are undone with the text.
    before = [list(each.saved) for each in touched]
    try:
        match work.command:
            case Command.APPLY:
                apply(record, journal, zone)
            case Command.REVERT:
                revert(record, journal, zone)
            case _:
                replace(record, applied, journal, zone)
        journal.flush()
        for each in touched:
            zone.publish(each)
    except AbortedError as error:
        _settle(error, touched, before, journal, zone)
        raise
    except BaseException:
        for each, saved in zip(touched, before, strict=True):
            each.saved = saved
        journal.undo()
        raise


def _settle(
    error: AbortedError, touched: Sequence[Record], before: Sequence[list[bytes | None]], journal: Journal, zone: Zone
) -> None:
    """Keep the reverts of a REPLACE that was aborted; if that fails, all is as before."""
    try:
        journal.commit()
    except BaseException:
        for each, saved in zip(touched, before, strict=True):
            each.saved = saved
        error.reverted = ()
        journal.undo()
        raise
    for each in touched:
        zone.publish(each)


def apply(record: Record, journal: Journal, zone: Zone) -> None:
    """Check what is expected, run the load hooks, then rewrite each function; or run the payload's own action."""
    # Before anything is written.
    check_expectations(record, journal.text)
    # The payload does it all by itself, text included (apply.action).
    if record.payload.hooks.of(HookPhase.APPLY):
        _own_action(record, HookPhase.APPLY, journal, zone)
        return
    journal.call(record, HookPhase.LOAD)
    for number, function in enumerate(record.payload.functions):
        # A hook of another payload's may have applied it; to save again would save the jump.
        if record.saved[number] is not None:
            zone.warn(f"{record.name}: {function.name} is applied already")
            continue
        saved = record.saved[number] = journal.text.read(function.place, len(function.new))
        # Expected is what was read: what nobody saved must not be lost.
        journal.text.write(function.place, function.new, saved)


def revert(record: Record, journal: Journal, zone: Zone) -> None:
    """revert_payload(): put back each function, then run the unload hooks; or run the payload's own action."""
    if record.payload.hooks.of(HookPhase.REVERT):
        _own_action(record, HookPhase.REVERT, journal, zone)
        return
    # Text first, so that unload hooks find functions as they were.
    put_back(record, journal.text)
    for number, function in enumerate(record.payload.functions):
        if record.saved[number] is None:
            zone.warn(f"{record.name}: {function.name} is not applied")
        record.saved[number] = None
    journal.call(record, HookPhase.UNLOAD)


def replace(record: Record, applied: Sequence[Record], journal: Journal, zone: Zone) -> None:
    """Revert everything, the last applied first, then apply one payload.

    Raises:
        AbortedError: a payload would not be reverted, or the new one not be applied, by its own word.
    """
    reverted: list[Record] = []
    try:
        # The top of the stack first.
        for each in reversed(applied):
            revert(each, journal, zone)
            reverted.append(each)
        apply(record, journal, zone)
    except ActRefusedError as error:
        # Only then is nothing left that protects the guest.
        if reverted == list(reversed(applied)):
            zone.warn(
                f"{record.name}: SYSTEM MIGHT BE INSECURE: "
                "Replace action has been aborted after reverting ALL payloads!"
            )
        raise AbortedError(error.message, errno=error.errno, payload=error.payload, reverted=tuple(reverted)) from error


def put_back(record: Record, text: Overlay) -> None:
    """Write the bytes that a payload replaced, the last first."""
    # In reverse, in case two write to the same place.
    for function, saved in reversed(list(zip(record.payload.functions, record.saved, strict=True))):
        # None was not applied; empty was applied by a hook, which must undo it.
        if saved:
            text.write(function.place, saved, function.new)


def check_expectations(record: Record, text: Overlay) -> None:
    """livepatch_check_expectations(): EINVAL unless every function begins with the bytes that its payload expects."""
    for function in record.payload.functions:
        # At the function's first byte, also where a jump goes behind endbr64.
        found = text.read(function.old_address, len(function.expected))
        if found != function.expected:
            raise ActRefusedError(
                f"{function.name} begins {found.hex(' ')}, where {function.expected.hex(' ')} is expected",
                errno=errno.EINVAL,
                payload=record.name,
            )


def _own_action(record: Record, phase: HookPhase, journal: Journal, zone: Zone) -> None:
    """Let the payload's hook do what it wants; then it must have done all of it, or have failed and done nothing."""
    wanted = phase is HookPhase.APPLY
    result = journal.call(record, phase)
    flags = list(zone.applied_flags(record))
    # was_action_consistent().
    if any(flag is not (wanted if result == 0 else not wanted) for flag in flags):
        raise PartialError(f"partially {'applied' if wanted else 'reverted'} payload '{record.name}'!")
    if result:
        raise ActRefusedError(
            f"its {phase.value} hook returned {result}", errno=abs(result) or errno.EINVAL, payload=record.name
        )
    # A hook's bytes are its own affair.
    record.saved = [BY_HOOK if flag else None for flag in flags]
