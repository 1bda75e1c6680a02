"""ALTERNATIVEs: places whose code the kernel replaces at boot, and what it writes there."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
import numpy as np

from pvops_core.patching.altinstructions.altrecords import INVERTED, SECTION, AltEntry, read_alternatives
from pvops_core.patching.code.padding import Padding

if TYPE_CHECKING:
    from pvops_core.patching.code.padding import Rewriting

__all__ = [
    "ALWAYS",
    "FEATURES",
    "INVERTED",
    "SECTION",
    "AltEntry",
    "AltGroup",
    "Padding",
    "grouped",
    "overlapping",
    "read_alternatives",
    "replace",
]

# Which of several alternatives features may be forced on by what the kernel runs on, as numbers of
# arch/x86/include/asm/cpufeatures.h; the names are those of X86_FEATURE_*.
FEATURES: Final = {
    "XENPV": 8 * 32 + 16,
    "PVUNLOCK": 8 * 32 + 20,
    "VCPUPREEMPT": 8 * 32 + 21,
}

ALWAYS: Final = 3 * 32 + 21
"""X86_FEATURE_ALWAYS, which every CPU has."""


@attrs.frozen
class AltGroup:
    """The entries of one place: consecutive records of one address.

    Attributes:
        address: virtual address of the place.
        length: its bytes: those of its longest entry (nested ALTERNATIVEs pad, since 6.11).
        entries: in the order of the section.
    """

    address: int
    length: int
    entries: tuple[AltEntry, ...]

    @property
    def direct(self) -> AltEntry | None:
        """The entry that makes the place a call of an op; None in all other groups."""
        # A site's own entry is the first of its group in kernels since 6.8, but nothing says so in the section.
        for entry in self.entries:
            if entry.direct:
                return entry
        return None

    def chosen(self, features: frozenset[int]) -> AltEntry | None:
        """The entry that a CPU with these features gets: the last that applies; None where the code stays."""
        # apply_alternatives goes through all entries of a place, each from the original bytes, so that the last one
        # stands.
        for entry in reversed(self.entries):  # a loop, since generators would take longest in a plan of thousands
            if entry.applies(features):
                return entry
        return None


Placed = TypeVar("Placed", AltEntry, AltGroup)


def grouped(entries: Sequence[AltEntry]) -> tuple[AltGroup, ...]:
    """The groups of entries that are in the order of their section."""
    by_place = itertools.groupby(entries, key=lambda entry: entry.address)
    return tuple(_group(address, tuple(members)) for address, members in by_place)


def _group(address: int, entries: tuple[AltEntry, ...]) -> AltGroup:
    return AltGroup(address, max(entry.length for entry in entries), entries)


def overlapping(entries: Sequence[Placed], spans: Sequence[tuple[int, int]]) -> list[Placed]:
    """The entries, or groups, whose text shares a byte with one of the spans.

    Args:
        entries: in any order.
        spans: start and end of each span; they do not overlap each other.
    """
    if not spans or not entries:
        # numpy cannot take the columns of no rows.
        return []
    starts, ends = np.array(sorted(spans), np.uint64).T
    low = np.array([entry.address for entry in entries], np.uint64)
    high = low + np.array([entry.length for entry in entries], np.uint64)
    # The first span that ends after the entry begins is the only one that need be looked at.
    first = np.searchsorted(ends, low, side="right")
    hit = first < len(starts)
    hit[hit] = starts[first[hit]] < high[hit]
    return [entries[index] for index in np.flatnonzero(hit).tolist()]


def replace(entry: AltEntry, code: bytes, padding: Rewriting) -> bytes:
    """What the kernel writes over an entry's text when it applies: the replacement, relocated, padded with nops.

    Args:
        entry: the entry.
        code: the replacement's bytes as assembled.
        padding: the kernel's nops and how it finds them.
    """
    return padding.fill(code, entry.replacement, entry.address, entry.length)
