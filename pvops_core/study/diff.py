"""What changed between two result sets: all that a run determines exactly, wall time statistically."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from pvops_core.compare.comparison import EXIT_DIFFERENT, EXIT_EQUAL, EXIT_NOTHING_RAN
from pvops_core.records import Count, JsonRecord, document
from pvops_core.runs.junit import legal
from pvops_core.study.answers import Answers, counted, point_of, titled
from pvops_core.study.axes import AXES, Axes
from pvops_core.study.rows import HERE, Measured, Row
from pvops_core.study.statistics import Spread, spread

if TYPE_CHECKING:
    from collections.abc import Iterable

_ASIDE: Final = {*HERE, "key"}
EXACT: Final = tuple(name for name in Measured.__struct_fields__ if name not in _ASIDE)
"""Columns that must be the same."""
_LEAST_PAIRS: Final = 5


class Change(JsonRecord, frozen=True):
    """One value that is another.

    Attributes:
        old: What it was; null where it was not counted.
        new: What it is.
    """

    old: str | float | None
    new: str | float | None


class CellChange(JsonRecord, frozen=True):
    """A cell that does not do what it did.

    Attributes:
        cell: Where it stands.
        changes: Column -> what it was and is.
    """

    cell: Axes
    changes: Mapping[str, Change]


class WallChange(JsonRecord, frozen=True):
    """Wall time of one backend at one point that has changed by more than chance.

    Attributes:
        cell: The first of its cells.
        runs: Number of pairs of runs.
        wall_s: The new times, with the ratio to the old ones and its 95 % interval.
    """

    cell: Axes
    runs: Count
    wall_s: Spread


class StudyDiff(JsonRecord, frozen=True):
    """What changed between two result sets.

    Attributes:
        verdict: The result in a sentence.
        exit_code: The command's exit code.
        compared: Number of cells that both have.
        changed: Those of them that do not do what they did.
        missing: Cells that the old set has alone.
        added: Cells that the new set has alone.
        wall: Wall times that changed by more than chance, over five pairs of runs or more; no difference by themselves.
    """

    verdict: str
    exit_code: Count
    compared: Count
    changed: tuple[CellChange, ...]
    missing: tuple[Axes, ...]
    added: tuple[Axes, ...]
    wall: tuple[WallChange, ...]


def study_diff(old: Sequence[Row], new: Sequence[Row]) -> StudyDiff:
    """Hold the cells of two result sets against each other, by where they stand on the axes."""
    before, after = ({_cell(row.axes): row for row in rows} for rows in (old, new))
    both = [cell for cell in before if cell in after]
    changed = tuple(
        CellChange(before[cell].axes, changes) for cell in both if (changes := _changes(before[cell], after[cell]))
    )
    missing = tuple(row.axes for cell, row in before.items() if cell not in after)
    added = tuple(row.axes for cell, row in after.items() if cell not in before)
    wall = tuple(_wall([(before[cell], after[cell]) for cell in both]))
    code = EXIT_NOTHING_RAN if not both else EXIT_DIFFERENT if changed or missing else EXIT_EQUAL
    return StudyDiff(_verdict(len(both), changed, missing, added), code, len(both), changed, missing, added, wall)


def _cell(axes: Axes) -> tuple[object, ...]:
    return tuple(getattr(axes, name) for name in AXES)


def _changes(old: Row, new: Row) -> dict[str, Change]:
    was, now = document(old.measured), document(new.measured)
    return {name: Change(was[name], now[name]) for name in EXACT if was[name] != now[name]}


def _wall(pairs: Iterable[tuple[Row, Row]]) -> Iterable[WallChange]:
    series: dict[tuple[object, ...], list[tuple[Row, Row]]] = {}
    for old, new in pairs:
        if old.measured.event_log_sha256 and new.measured.event_log_sha256:
            series.setdefault((*point_of(old.axes), old.axes.backend), []).append((old, new))
    for found in series.values():
        times = spread([new.measured.wall_s for _, new in found], [old.measured.wall_s for old, _ in found])
        if len(found) < _LEAST_PAIRS or times.ratio_low is None or times.ratio_high is None:
            continue
        if not times.ratio_low <= 1 <= times.ratio_high:
            yield WallChange(found[0][0].axes, len(found), times)


def _verdict(both: int, changed: Sequence[CellChange], missing: Sequence[Axes], added: Sequence[Axes]) -> str:
    if not both:
        return "The two have no cell in common."
    parts = [
        f"{len(changed):,} of {counted(both, 'cell')} changed" if changed else f"No change in {counted(both, 'cell')}"
    ]
    parts += [f"{len(missing):,} are missing"] if missing else []
    parts += [f"{len(added):,} are new"] if added else []
    return f"{'; '.join(parts)}."


def lines_of(diff: StudyDiff, old: Sequence[Row], most: int = 20) -> Iterable[str]:
    """The difference in words: how many cells each column changed in, then cells one by one."""
    varying = Answers(old, "", 0).varying
    columns: dict[str, int] = {}
    for each in diff.changed:
        for name in each.changes:
            columns[name] = columns.get(name, 0) + 1
    yield from (f"  {name}: in {number:,}" for name, number in columns.items())
    for each in diff.changed[:most]:
        yield f"{titled(each.cell, varying)}: {_told(each)}"
    if len(diff.changed) > most:
        yield f"… and {len(diff.changed) - most:,} more"
    yield from (f"missing: {titled(axes, varying)}" for axes in diff.missing[:most])
    for wall in diff.wall:
        times = wall.wall_s
        place = titled(wall.cell, varying).rpartition(", seed")[0]
        yield f"wall time of {place}: {times.ratio:.3g} times as long [{times.ratio_low:.3g}, {times.ratio_high:.3g}]"


def _told(change: CellChange) -> str:
    def short(value: object) -> str:
        text = f"{value:,}" if isinstance(value, int) else str(value)
        return text if len(text) <= 24 else f"{text[:12]}…"

    return ", ".join(f"{name} {short(each.old)} -> {short(each.new)}" for name, each in change.changes.items())


def diff_junit(diff: StudyDiff, new: Sequence[Row]) -> bytes:
    """As JUnit XML: a test case for each cell, which fails where it changed or is missing."""
    by_cell = {_cell(each.cell): each for each in diff.changed}
    cells = [*(row.axes for row in new), *diff.missing]
    failures = len(diff.changed) + len(diff.missing)
    root = ET.Element("testsuite", name="pvops study diff", tests=str(len(cells)), failures=str(failures), errors="0")
    for axes in cells:
        name = " ".join(f"{axis}={getattr(axes, axis)}" for axis in AXES if axis != "backend")
        case = ET.SubElement(root, "testcase", classname=axes.backend, name=legal(name))
        if found := by_cell.get(_cell(axes)):
            failure = ET.SubElement(case, "failure", message=legal(_told(found)), type="changed")
            failure.text = "\n".join(
                f"{key}: {legal(str(c.old))} -> {legal(str(c.new))}" for key, c in found.changes.items()
            )
        elif axes in diff.missing:
            ET.SubElement(case, "failure", message="is not in the new results", type="missing")
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))
