"""A study as one self-contained page, of the same parts as a comparison's; imported only where a page is wanted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import attrs
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pvops_core.compare.plots import SERIES, stacked_bars
from pvops_core.runs.costs import NO_MEASURE, quantity
from pvops_core.study.answers import POINT, Answers, Series, titled
from pvops_core.study.plots import Line, lines, shortened
from pvops_core.study.rows import COSTS, HERE, ROUND_COSTS, Row, columns

if TYPE_CHECKING:
    from pvops_core.runs.observation import Observation
    from pvops_core.study.report import StudyReport

MOST_ROWS: Final = 2000
_MOST_LISTED: Final = 200
_MOST_PLOTS: Final = 24
_MOST_BARS: Final = 16
_PARTS: Final = SERIES - 1
_MAPPED: Final = (
    *(key for key in ROUND_COSTS if key != "round_own_calls"),
    "op_calls",
    "traps",
    "hypercalls",
    "instructions",
    "wall_s",
)


@attrs.frozen
class Plot:
    """A plot, and what it shows.

    Attributes:
        title: what is measured.
        note: what it means, or where it was held.
        picture: the drawing.
    """

    title: str
    note: str
    picture: Markup


@attrs.frozen
class HeatMap:
    """A cost's ratio over two axes.

    Attributes:
        title: cost and backend.
        across: name of the axis to the right, and its values.
        down: name of the axis downwards, and its values.
        ratios: (down, across) -> ratio, where there is one.
        series: number of the backend's colour.
    """

    title: str
    across: tuple[str, list[str | int]]
    down: tuple[str, list[str | int]]
    ratios: Mapping[tuple[str | int, str | int], float]
    series: int

    def weight(self, ratio: float) -> int:
        """Per cent of colour: none for the least ratio, most for the greatest."""
        low, high = min(self.ratios.values()), max(self.ratios.values())
        return round(8 + 52 * (ratio - low) / (high - low)) if high > low else 8


def page(told: StudyReport) -> str:
    """The HTML text: no scripts, nothing from outside, light and dark."""
    answers = told.answers
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("pvops_core.study"), PackageLoader("pvops_core.compare")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    colours = {name: number % SERIES for number, name in enumerate(_backends(answers))}
    ops, bars = _op_bars(told)
    return environment.get_template("study.html").render(
        name=told.meta.get("name", ""),
        answers=answers,
        costs=[COSTS[key] for key in answers.costs],
        colours=colours,
        place=lambda series, axis: series.point[POINT.index(axis)],
        plots=list(_line_plots(answers, colours))[:_MOST_PLOTS],
        maps=list(_heat_maps(answers, colours)),
        ops=ops,
        bars=bars,
        op_plot=Markup(stacked_bars("op calls by op", bars)) if bars else None,  # noqa: S704 - as below
        skipped=told.meta.get("skipped", ()),
        titled=lambda row: titled(row.axes, answers.varying),
        replay=told.replay,
        quantity=quantity,
        cost_of=COSTS.__getitem__,
        columns=[name for name, _type in columns(Row)],
        value=_value,
        most=_MOST_LISTED,
        most_rows=MOST_ROWS,
        no_measure=NO_MEASURE,
        here=HERE,
        text=told.meta.get("text", ""),
    )


def _value(row: Row, name: str) -> object:
    found = next(getattr(part, name) for part in (row.axes, row.measured, row) if name in type(part).__struct_fields__)
    return "-" if found is None else getattr(found, "value", found)


def _backends(answers: Answers) -> list[str]:
    names = dict.fromkeys(each.backend for each in answers.series)
    return sorted(names, key=lambda name: name != answers.reference)


def _held(answers: Answers, free: tuple[str, ...]) -> tuple[list[Series], str]:
    """The series at the first value of each axis that varies and is not free, and words for that."""
    held = {name: answers.series[0].point[POINT.index(name)] for name in answers.varying if name not in free}
    found = [
        each for each in answers.series if all(each.point[POINT.index(name)] == value for name, value in held.items())
    ]
    return found, ", ".join(f"{name} {value or '-'}" for name, value in held.items())


def _line_plots(answers: Answers, colours: Mapping[str, int]) -> Iterator[Plot]:
    for axis in answers.varying:
        found, held = _held(answers, (axis,))
        for key in answers.costs:
            cost = COSTS[key]
            drawn = [
                Line(
                    number,
                    [(each.point[POINT.index(axis)], each.spreads[key]) for each in found if _has(each, name, key)],
                )
                for name, number in colours.items()
            ]
            drawn = [line for line in drawn if line.points]
            if any(spread.high for line in drawn for _value, spread in line.points):
                title = f"{cost.title} over {axis}"
                picture = lines(title, axis, drawn, lambda value, unit=cost.unit: quantity(value, unit))  # type: ignore[misc]
                note = f"at {held}" if held else cost.explanation
                yield Plot(title, note, Markup(picture))  # noqa: S704 - made by the plotter, which escapes


def _has(series: Series, backend: str, cost: str) -> bool:
    return series.backend == backend and cost in series.spreads


def _heat_maps(answers: Answers, colours: Mapping[str, int]) -> Iterator[HeatMap]:
    if len(answers.varying) < 2:
        return
    many = sorted(answers.varying, key=lambda name: -len({each.point[POINT.index(name)] for each in answers.series}))
    across, down = sorted(many[:2], key=POINT.index, reverse=True)
    found, held = _held(answers, (across, down))
    for name, number in colours.items():
        for key in _MAPPED:
            own = [each for each in found if _has(each, name, key) and each.spreads[key].ratio is not None]
            if name == answers.reference or not own:
                continue
            places = [(each.point[POINT.index(down)], each.point[POINT.index(across)]) for each in own]
            ratios = {place: each.spreads[key].ratio or 0.0 for place, each in zip(places, own, strict=True)}
            title = f"{COSTS[key].title}: {name} as a multiple of {answers.reference}{f', at {held}' if held else ''}"
            right, below = ([*dict.fromkeys(place[which] for place in places)] for which in (1, 0))
            yield HeatMap(title, (across, right), (down, below), ratios, number)


def _op_bars(told: StudyReport) -> tuple[list[str], dict[str, list[int]]]:
    """Calls that hooks served by op, of each series' first run: those called most, and the rest."""
    answers = told.answers
    counts = {
        _bar_name(answers, each): _ops(told.store.observation(each.rows[0].measured.key))
        for each in answers.series[:_MOST_BARS]
        if each.spreads
    }
    totals: dict[str, int] = {}
    for ops in counts.values():
        for op, number in ops.items():
            totals[op] = totals.get(op, 0) + number
    if not totals:
        return [], {}
    names = sorted(totals, key=lambda op: -totals[op])[:_PARTS]
    bars = {
        name: [*(ops.get(op, 0) for op in names), sum(number for op, number in ops.items() if op not in names)]
        for name, ops in counts.items()
    }
    return [*names, "others"], bars


def _ops(observation: Observation) -> Mapping[str, int]:
    """Calls by op; of a workload those of a round, for which its boot was made, to whole calls."""
    rounds = tuple(observation.rounds.values())
    if len(rounds) != 1:
        return observation.counts.ops
    return {op: round(number / rounds[0].rounds) for op, number in rounds[0].total.counts.ops.items()}


def _bar_name(answers: Answers, series: Series) -> str:
    words = []
    for name in answers.varying:
        values = list(dict.fromkeys(str(each.point[POINT.index(name)]) for each in answers.series))
        short = dict(zip(values, shortened(values), strict=True))
        words.append(f"{name} {short[str(series.point[POINT.index(name)])]}")
    return " ".join([*words, series.backend])
