"""Where two boots of one kernel differ: in its call sites, and on the console, line by line."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.compare.differences import LinePair, align
from pvops_core.errors import unknown
from pvops_core.records import JsonRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pvops_core.compare.comparison import GroupResult
    from pvops_core.ops import Layout
    from pvops_core.runs.observation import Observation

_STAMP: Final = re.compile(r"^\[ *\d+\.\d+\]( ?\[ *[TC]\d+\])? ")
"""What printk puts before a line: the time, and the task or CPU where it is told to."""


def named_ops(patterns: Sequence[str], layouts: Iterable[Layout]) -> tuple[str, ...]:
    """The ops that are asked for, by name.

    Args:
        patterns: names (``save_fl``), kernel paths (``irq.save_fl``), or shell patterns of either (``irq.*``).
        layouts: tables that they may be of.

    Raises:
        UsageError: a pattern that no op fits.
    """
    asked: set[str] = set()
    paths = {(slot.op.name, slot.path) for layout in layouts for slot in layout.slots}
    for pattern in patterns:
        fitting = {op for op, path in paths if fnmatchcase(op, pattern) or fnmatchcase(path, pattern)}
        if not fitting:
            raise unknown("op", pattern, sorted(op for op, _ in paths))
        asked |= fitting
    return tuple(sorted(asked))


class SiteDifference(JsonRecord, frozen=True):
    """A call site that differs.

    Attributes:
        op: Name of the op.
        address: Virtual address, hex.
        expected: Bytes in the reference, hex digits.
        found: Bytes in this boot, hex digits.
    """

    op: str
    address: str
    expected: str
    found: str


@attrs.frozen
class BootDifference:
    """Where a boot is not as the reference's was.

    Attributes:
        reference: the boot that it is measured by.
        other: the boot.
        shared: op name -> number of its sites that were read in both.
        sites: those of them whose bytes differ.
        lines: the consoles side by side, without time stamps.
    """

    reference: Observation
    other: Observation
    shared: Mapping[str, int]
    sites: tuple[SiteDifference, ...]
    lines: tuple[LinePair, ...]

    @property
    def compared(self) -> int:
        """Number of sites that were read in both."""
        return sum(self.shared.values())

    @property
    def by_op(self) -> dict[str, int]:
        """Op name -> number of its sites that differ, also where that is 0."""
        found = dict.fromkeys(self.shared, 0)
        for site in self.sites:
            found[site.op] += 1
        return found

    @property
    def unlike(self) -> tuple[LinePair, ...]:
        """Rows of the consoles that are not the same on both."""
        return tuple(pair for pair in self.lines if not pair.equal)


def boot_differences(group: GroupResult) -> tuple[BootDifference, ...]:
    """Every other boot of a group beside its reference."""
    reference = group.reference
    return tuple(_difference(reference, other) for other in group.observations if other is not reference)


def console_lines(console: str) -> list[str]:
    """The lines without what differs in every boot: time stamps, and the carriage returns of serial consoles."""
    return [_STAMP.sub("", line.rstrip("\r")) for line in console.split("\n")]


def _difference(reference: Observation, other: Observation) -> BootDifference:
    shared = {
        op: len(codes.keys() & other.site_codes[op].keys())
        for op, codes in reference.site_codes.items()
        if op in other.site_codes
    }
    lines = align(console_lines(reference.console), console_lines(other.console))
    return BootDifference(reference, other, shared, tuple(_sites(reference, other)), tuple(lines))


def _sites(reference: Observation, other: Observation) -> Iterator[SiteDifference]:
    for op, codes in reference.site_codes.items():
        others = other.site_codes.get(op, {})
        for address, code in codes.items():
            if address in others and others[address] != code:
                yield SiteDifference(op, address, code, others[address])
