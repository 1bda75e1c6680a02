"""What a study came to: the verdict, medians and ratios, what lies far out. Made of its rows alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import attrs
from msgspec.structs import asdict

from pvops_core.compare.comparison import EXIT_DIFFERENT, EXIT_EQUAL, EXIT_ERROR, EXIT_GUEST_FAILED, EXIT_NOTHING_RAN
from pvops_core.runs.observation import Outcome
from pvops_core.study.axes import AXES, SPREAD, Axes
from pvops_core.study.rows import COSTS, ROUND_COSTS, Row
from pvops_core.study.statistics import Spread, far_out, spread

POINT: Final = tuple(name for name in AXES if name not in {*SPREAD, "backend"})
"""Axes that a point has: cells of one point are compared with each other."""
Point = tuple[str | int, ...]


def point_of(axes: Axes) -> Point:
    """The point at which a cell stands."""
    return tuple(getattr(axes, name) for name in POINT)


@attrs.frozen
class Odd:
    """A run whose result is not what it should be, and the run that it is measured by.

    Attributes:
        row: the run.
        expected: the run measured by.
        field: ``results``, or ``event_log`` for a repeat that did not do the same.
    """

    row: Row
    expected: Row
    field: str


@attrs.frozen
class Outlier:
    """A run far from the others of its backend at its point.

    Attributes:
        row: the run.
        cost: key of the cost.
        value: what it is.
        median: what is usual.
    """

    row: Row
    cost: str
    value: float
    median: float


@attrs.define(slots=False, eq=False)  # cached properties live in the instance's dictionary
class Series:
    """The runs of one backend at one point.

    Attributes:
        point: values of the axes of POINT.
        backend: the backend.
        rows: its runs.
        base: those of the reference backend there.
    """

    point: Point
    backend: str
    rows: tuple[Row, ...]
    base: tuple[Row, ...]

    def values(self, cost: str) -> list[float]:
        """A cost over the runs, where it was counted."""
        return [value for row in self.rows if (value := value_of(row, cost)) is not None]

    @functools.cached_property
    def spreads(self) -> dict[str, Spread]:
        """Cost -> its spread, for costs that were counted."""
        return {cost: self._spread(cost) for cost in COSTS if self.values(cost)}

    def _spread(self, cost: str) -> Spread:
        by_place = {_place(row): value_of(row, cost) for row in self.base}
        pairs = [(value_of(row, cost), by_place.get(_place(row))) for row in self.rows]
        whole = [(own, base) for own, base in pairs if own is not None and base is not None]
        if len(whole) != len(self.values(cost)):
            return spread(self.values(cost))
        return spread([own for own, _ in whole], [base for _, base in whole])

    @property
    def outliers(self) -> list[Outlier]:
        """Its runs that lie far from the others."""
        found = []
        for cost, each in self.spreads.items():
            rows = [row for row in self.rows if value_of(row, cost) is not None]
            values = self.values(cost)
            found += [Outlier(rows[number], cost, values[number], each.median) for number in far_out(values)]
        return found


def _place(row: Row) -> tuple[int, int]:
    return row.axes.seed, row.axes.repeat


def value_of(row: Row, cost: str) -> float | None:
    """What a run was charged; None where that was not counted, or it was lost."""
    if not row.measured.event_log_sha256:
        return None
    value: float | None = getattr(row.measured, cost)
    return value


@attrs.define(slots=False, eq=False)
class Answers:
    """All answers of a study.

    Attributes:
        rows: its runs, in the order of the plan.
        reference: backend measured by.
        planned: number of its cells.
    """

    rows: Sequence[Row]
    reference: str
    planned: int

    @functools.cached_property
    def series(self) -> list[Series]:
        """Each backend at each point, in the order of the plan."""
        found: dict[tuple[Point, str], list[Row]] = {}
        for row in self.rows:
            found.setdefault((point_of(row.axes), row.axes.backend), []).append(row)
        return [
            Series(point, backend, tuple(rows), tuple(found.get((point, self.reference), ())))
            for (point, backend), rows in found.items()
        ]

    @functools.cached_property
    def varying(self) -> list[str]:
        """The axes of points on which the study has more than one value."""
        return [name for number, name in enumerate(POINT) if len({each.point[number] for each in self.series}) > 1]

    @functools.cached_property
    def costs(self) -> list[str]:
        """The costs that some run was charged; of workloads what a round was, for which alone they are booted."""
        of_rounds = [key for key in ROUND_COSTS if any(key in s.spreads for s in self.series)]
        among = [*of_rounds, "wall_s"] if of_rounds else [key for key in COSTS if key not in ROUND_COSTS]
        return [cost for cost in among if any(cost in s.spreads and s.spreads[cost].high for s in self.series)]

    @functools.cached_property
    def failures(self) -> list[Row]:
        """Runs whose guest did not come to its own end."""
        return [row for row in self.rows if row.measured.outcome.exit_code not in {0, 2}]

    @functools.cached_property
    def unsupported(self) -> list[Row]:
        """Cells that did not run since their backend cannot be what they ask for."""
        return [row for row in self.rows if row.measured.outcome is Outcome.UNSUPPORTED]

    @functools.cached_property
    def odd(self) -> list[Odd]:
        """Runs whose result is another than the reference's at their point, whatever the seed; and unlike repeats."""
        return [*self._unlike(_of_point, "results"), *self._unlike(_of_cell, "event_log")]

    def _unlike(self, place: Callable[[Axes], tuple[object, ...]], field: str) -> list[Odd]:
        firsts: dict[tuple[object, ...], Row] = {}
        there = [row for row in self.rows if getattr(row.measured, f"{field}_sha256")]
        for row in sorted(there, key=lambda row: row.axes.backend != self.reference):
            firsts.setdefault(place(row.axes), row)
        return [
            Odd(row, first, field)
            for row in there
            if getattr(row.measured, f"{field}_sha256")
            != getattr((first := firsts[place(row.axes)]).measured, f"{field}_sha256")
        ]

    @functools.cached_property
    def outliers(self) -> list[Outlier]:
        """Runs that lie far from the others of their series."""
        return [found for each in self.series for found in each.outliers]

    @property
    def verdict(self) -> str:
        """One sentence."""
        left = self.planned - len(self.rows)
        rest = f" {left:,} of {self.planned:,} cells are not run yet." if left else ""
        if not self.rows:
            return f"Nothing ran.{rest}"
        if not self.odd and not self.failures:
            points = len({each.point for each in self.series})
            of = "at the one point" if points == 1 else f"at each of {points:,} points"
            return f"Results are equal {of}, over {counted(len(self.rows), 'run')}.{rest}"
        parts = []
        if odd := [each for each in self.odd if each.field == "results"]:
            parts.append(f"results differ in {len(odd):,} of {counted(len(self.rows), 'run')}")
        if unlike := len(self.odd) - len(odd):
            parts.append(f"{counted(unlike, 'repeat')} did not do the same again")
        if self.failures:
            parts.append(f"{len(self.failures):,} of {counted(len(self.rows), 'run')} did not finish")
        sentence = "; ".join(parts)
        return f"{sentence[0].upper()}{sentence[1:]}.{rest}"

    @property
    def exit_code(self) -> int:
        """The worst of all, as of a comparison; 3 where nothing ran."""
        codes = {row.measured.outcome.exit_code for row in self.rows} - {0, 2}
        if not self.rows:
            return EXIT_NOTHING_RAN
        if codes:
            return EXIT_ERROR if EXIT_ERROR in codes else EXIT_GUEST_FAILED
        return EXIT_DIFFERENT if self.odd else EXIT_EQUAL


def _of_point(axes: Axes) -> tuple[object, ...]:
    return point_of(axes)


def _of_cell(axes: Axes) -> tuple[object, ...]:
    return tuple(value for name, value in asdict(axes).items() if name != "repeat")


def counted(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def titled(axes: Axes, varying: Iterable[str]) -> str:
    """A cell in a few words: its backend and where it stands on the axes named."""
    shown = [f"{name} {getattr(axes, name) or '-'}" for name in varying]
    return ", ".join(
        [axes.backend, *shown, f"seed {axes.seed}", *([f"repeat {axes.repeat}"] if axes.repeat > 1 else [])]
    )
