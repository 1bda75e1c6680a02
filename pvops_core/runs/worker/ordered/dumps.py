"""Dumps that a command line orders, as they are written of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import asdict

from pvops_core.errors import PvopsError
from pvops_core.runs.observation import Outcome
from pvops_core.runs.orders import DumpDone
from pvops_core.session.dumping import check

if TYPE_CHECKING:
    from pvops_core.runs.orders import DumpOrder
    from pvops_core.session import Session

_PANIC: Final = ("__crash_kexec", "panic")
"""Functions of a kernel that panics; the first is called whether a crash kernel is loaded or not (kernel/panic.c)."""


class OrderedDump:
    """A dump that is written where an order says.

    Args:
        order: the order.
        session: whose guest it is of; it has not run yet.

    Raises:
        UsageError: the guest has no such place, or cannot be dumped.
    """

    def __init__(self, order: DumpOrder, session: Session) -> None:
        check(session)
        self.done = DumpDone(**asdict(order))
        self._session = session
        place = order.place or (self._panics(session) if order.outcome == Outcome.CRASH.value else "")
        if place:
            session.once_at(place, self._write)

    @staticmethod
    def _panics(session: Session) -> str:
        """Where a kernel that panics would start kdump, its last words said; empty where that has no symbol."""
        return next((name for name in _PANIC if name in session.guest.symbols), "")

    def ended(self, outcome: Outcome) -> None:
        """Write one that is due at this end of the run, unless a panic has made it."""
        if self.done.outcome == outcome.value and not self.done.made:
            self._write()

    def _write(self) -> None:
        """Write it; the run goes on without it where that cannot be."""
        order = {name: getattr(self.done, name) for name in ("file", "place", "outcome")}
        ns = self._session.machine.clock.ns
        try:
            dumped = self._session.dump(self.done.file)
        except PvopsError as error:
            self.done = DumpDone(**order, refused=str(error), virtual_ns=ns)
        else:
            self.done = DumpDone(**order, made=True, own_info=dumped.own_info, virtual_ns=ns)
