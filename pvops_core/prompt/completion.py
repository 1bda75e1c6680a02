"""Completion at a prompt: Python's names, and inside of quotes the guest's symbols, its ops and points of its boot."""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, Final

from pvops_core.guest.points import POINTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.session import Session

MOST: Final = 200
"""GuestNames that are offered at once: a kernel has a hundred thousand."""
_QUOTES: Final = "\"'"


def quoted(line: str) -> bool:
    """Whether the end of a line is inside of quotes."""
    open_ = ""
    escaped = False
    for letter in line:
        if escaped:
            escaped = False
        elif open_ and letter == "\\":
            escaped = True
        elif open_:
            open_ = "" if letter == open_ else open_
        elif letter in _QUOTES:
            open_ = letter
    return bool(open_)


class GuestNames:
    """The names that texts at a prompt may be.

    Args:
        session: whose guest it is.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @cached_property
    def _known(self) -> list[str]:
        table = self._session.table
        ops = [slot.op.name for slot in table.layout.slots] if table is not None else []
        return sorted({*self._session.guest.symbols, *ops, *(point.name for point in POINTS)})

    def beginning(self, text: str) -> list[str]:
        """Those that begin so, the first of them."""
        start = bisect_left(self._known, text)
        found = takewhile(lambda each: each.startswith(text), islice(self._known, start, None))
        return list(islice(found, MOST))


class Completer:
    """A completer for readline: asked for one answer after the other.

    Args:
        session: whose guest it is.
        space: the prompt's name space.
    """

    def __init__(self, session: Session, space: Mapping[str, Any]) -> None:
        import rlcompleter  # noqa: PLC0415 - it changes readline as it is imported

        self._names = GuestNames(session)
        self._python = rlcompleter.Completer(dict(space) if not isinstance(space, dict) else space)
        self._found: list[str] = []

    def complete(self, text: str, state: int, before: str | None = None) -> str | None:
        """The answer of that number; None after the last.

        Args:
            text: the word that has been begun.
            state: number of the answer.
            before: what stands on the line before it; readline is asked unless given.
        """
        if before is None:
            import readline  # noqa: PLC0415 - not everywhere there

            before = readline.get_line_buffer()[: readline.get_begidx()]
        if not quoted(before):
            return self._python.complete(text, state)
        if state == 0:
            self._found = self._names.beginning(text)
        return self._found[state] if state < len(self._found) else None
