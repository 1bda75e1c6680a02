"""Whoever has put something into guest text, and will put back what was there, holds those bytes at the one poker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import attrs

from pvops_core.errors import HeldError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@attrs.frozen
class Hold:
    """Bytes that are somebody's for now.

    Attributes:
        start: guest-virtual address of the first byte.
        end: the first address after them.
        holder: who has them, for people.
        why: what it has done there, and what to do about that.
    """

    start: int
    end: int
    holder: str
    why: str


class Holder(Protocol):
    """Holds bytes of guest text."""

    def holds(self) -> Iterable[Hold]:
        """What it holds now."""


class Holders:
    """Those of one machine."""

    def __init__(self) -> None:
        self._all: list[Holder] = []

    def add(self, holder: Holder) -> None:
        """Ask it from now on."""
        self._all.append(holder)

    def refuse(self, ranges: NDArray[np.uint64], by: str, writer: Holder | None) -> None:
        """Nobody but the holder itself writes what is held: its own would be lost, and later old bytes come back.

        Raises:
            HeldError: a range ``[start, end)`` meets what another than the writer holds.
        """
        for holder in self._all:
            if holder is writer:
                continue
            for hold in holder.holds():
                # Half-open ranges: two that only meet share no byte.
                if bool(((ranges[:, 0] < hold.end) & (hold.start < ranges[:, 1])).any()):
                    raise HeldError(f"{hold.why} ({by})", address=hold.start, holder=hold.holder)
