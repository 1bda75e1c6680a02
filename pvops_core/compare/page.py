"""A comparison as one self-contained page; imported only where a page is wanted, since plots take a second to load."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import attrs
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pvops_core.compare.bootdiff import BootDifference, boot_differences
from pvops_core.compare.columns import Column, every_column, forms_of
from pvops_core.compare.differences import LinePair, align, result_lines
from pvops_core.compare.plots import SERIES, Bar, grouped_bars, stacked_bars
from pvops_core.compare.rounds import round_costs, round_counters, round_rows, workloads_of
from pvops_core.compare.text import group_state, told_unused
from pvops_core.runs.costs import BOOT_COSTS, COSTS, NO_MEASURE, Charged, Cost, known, quantity
from pvops_core.runs.phases import PHASE_COLUMNS, phase_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pvops_core.compare.comparison import Choice, Comparison, GroupResult
    from pvops_core.runs.observation import Observation

_MOST_CONSOLE_LINES = 2000


@attrs.frozen
class CounterRow:
    """One name with its count on each backend of a group.

    Attributes:
        name: of the op, trap or hypercall.
        values: one for each backend.
        equal: they are all the same.
    """

    name: str
    values: tuple[int, ...]
    equal: bool


@attrs.frozen
class Counters:
    """A table of counts.

    Attributes:
        title: of the table.
        rows: by falling count.
    """

    title: str
    rows: tuple[CounterRow, ...]


@attrs.frozen
class ConsoleDiff:
    """Two consoles side by side.

    Attributes:
        left: backend of the left one.
        right: backend of the right one.
        rows: their lines.
        results_equal: the lines that are results are the same.
        cut: lines left off at the end.
    """

    left: str
    right: str
    rows: tuple[LinePair, ...]
    results_equal: bool
    cut: int


def page(comparison: Comparison) -> str:
    """The HTML text: no scripts, nothing from outside, light and dark."""
    environment = Environment(
        loader=PackageLoader("pvops_core.compare"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    series = series_numbers(comparison)
    return environment.get_template("comparison.html").render(
        comparison=comparison,
        columns=every_column(comparison.observations).columns,
        heads=heads(every_column(comparison.observations).columns),
        unused=told_unused,
        no_measure=NO_MEASURE,
        series=series,
        plots=list(_cost_plots(comparison, series)),
        sites_plot=_sites_plot(comparison),
        forms=forms_of(comparison.observations),
        versions=_versions(comparison),
        series_of=lambda number: number % SERIES,
        quantity=quantity,
        round_costs=lambda group: round_costs(group.observations),
        round_rows=lambda group: round_rows(group.observations),
        round_counters=lambda group, name: list(round_counters(group.observations, name)),
        workloads_of=lambda group: workloads_of(group.observations),
        phase_columns=PHASE_COLUMNS,
        phase_rows=lambda group: phase_rows(group.observations, comparison.choice.phases),
        phase_plots=list(_phase_plots(comparison, series)),
        boots=boot_differences,
        op_rows=lambda difference: _op_rows(difference, comparison.choice),
        state=group_state,
        counters=group_counters,
        site_rows=site_rows,
        consoles=console_diffs,
        result_words=result_words,
    )


def series_numbers(comparison: Comparison) -> dict[str, int]:
    """Backend -> number of its colour, the same in all plots."""
    names = dict.fromkeys(observation.cell.backend for observation in comparison.observations)
    return {name: number for number, name in enumerate(names)}


def heads(columns: Sequence[Column]) -> list[tuple[str, list[Column]]]:
    """Columns beside each other that have a head in common, by it; one without is alone."""
    alone = ((number if not column.over else -1, column) for number, column in enumerate(columns))
    found = itertools.groupby(alone, key=lambda each: (each[0], each[1].over))
    return [(over, [column for _number, column in members]) for (_number, over), members in found]


def group_counters(group: GroupResult) -> list[Counters]:
    """Op calls, own calls, hypercalls, traps and the machine's own counts, name by name."""
    sources: tuple[tuple[str, Callable[[Observation], Mapping[str, int]]], ...] = (
        ("Op calls", lambda o: o.counts.ops),
        ("Own calls", lambda o: o.counts.own),
        ("Hypercalls", lambda o: o.counts.platform.hypercalls),
        ("Traps", lambda o: o.counts.platform.traps),
        ("Machine", lambda o: o.counts.machine),
        ("Guest's own counts", lambda o: o.counts.guest),
    )
    tables = [Counters(title, _counter_rows([of(o) for o in group.observations])) for title, of in sources]
    return [table for table in tables if table.rows]


def site_rows(group: GroupResult) -> list[tuple[str, list[str]]]:
    """Op -> for each backend, what its sites have become."""
    ops = sorted({op for observation in group.observations for op in observation.sites})
    return [(op, [_forms_text(o.sites.get(op, {})) for o in group.observations]) for op in ops]


def console_diffs(group: GroupResult) -> list[ConsoleDiff]:
    """The reference's console beside each other backend's."""
    if group.group.of_kernel:
        return [_cut(boot.reference, boot.other, boot.lines, equal=not boot.unlike) for boot in boot_differences(group)]
    return [_console_diff(group.reference, other) for other in group.observations if other is not group.reference]


def result_words(group: GroupResult) -> list[tuple[str, list[str], bool]]:
    """Each word of the guest's report: its value on each backend, and whether it is one value."""
    words = sorted({word for observation in group.observations for word in observation.results})
    table = []
    for word in words:
        values = [observation.results.get(word, "—") for observation in group.observations]
        table.append((word, values, len(set(values)) == 1))
    return table


def _counter_rows(counters: Sequence[Mapping[str, int]]) -> tuple[CounterRow, ...]:
    names = {name for counter in counters for name in counter}
    rows = [(name, tuple(counter.get(name, 0) for counter in counters)) for name in names]
    rows.sort(key=lambda row: (-max(row[1]), row[0]))
    return tuple(CounterRow(name, values, len(set(values)) == 1) for name, values in rows)


def _forms_text(by_form: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {form}" for form, number in by_form.items() if number)


def _console_diff(left: Observation, right: Observation) -> ConsoleDiff:
    rows = align(left.console.splitlines(), right.console.splitlines())
    return _cut(left, right, rows, equal=result_lines(left.console) == result_lines(right.console))


def _cut(left: Observation, right: Observation, rows: Sequence[LinePair], *, equal: bool) -> ConsoleDiff:
    return ConsoleDiff(
        left.cell.backend,
        right.cell.backend,
        tuple(rows[:_MOST_CONSOLE_LINES]),
        equal,
        len(rows[_MOST_CONSOLE_LINES:]),
    )


def _cost_plots(comparison: Comparison, series: Mapping[str, int]) -> Iterator[tuple[Cost[Charged], Markup]]:
    """Each cost of the guest's own that any run has."""
    for cost in _costs(comparison):
        bars = [
            Bar(_row_name(group), series[o.cell.backend], cost.of(o), quantity(cost.of(o), cost.unit))
            for group in comparison.groups
            for o in group.observations
            if known(cost, o)
        ]
        if cost.key != "wall_s" and any(bar.value for bar in bars):
            yield cost, Markup(grouped_bars(cost.title, bars))  # noqa: S704 -- made by the plotter, which escapes


def _costs(comparison: Comparison) -> Sequence[Cost[Charged]]:
    return BOOT_COSTS if comparison.of_kernel else COSTS


def _phase_plots(comparison: Comparison, series: Mapping[str, int]) -> Iterator[tuple[str, Markup]]:
    """Each amount that is told of phases, phase by phase."""
    for column in PHASE_COLUMNS:
        bars = [
            Bar(name, series[backend], amounts.get(column.key, 0), quantity(amounts.get(column.key, 0), column.unit))
            for group in comparison.groups
            for name, backend, amounts in phase_rows(group.observations, comparison.choice.phases)
        ]
        if any(bar.value for bar in bars):
            title = f"{column.title} by phase"
            yield title, Markup(grouped_bars(title, bars))  # noqa: S704 -- made by the plotter, which escapes


def _op_rows(difference: BootDifference, choice: Choice) -> list[tuple[str, int, int]]:
    """Op, number of its sites, how many of them differ, for the ops asked for."""
    by_op = difference.by_op
    return [(op, number, by_op[op]) for op, number in sorted(difference.shared.items()) if choice.wants(op)]


def _sites_plot(comparison: Comparison) -> Markup | None:
    names = forms_of(comparison.observations)
    rows = {
        f"{_row_name(group)} {o.cell.backend}": [o.sites_by_form.get(form, 0) for form in names]
        for group in comparison.groups
        for o in group.observations
        if o.measured
    }
    return Markup(stacked_bars("sites by form", rows)) if any(map(any, rows.values())) else None  # noqa: S704 -- as above


def _row_name(group: GroupResult) -> str:
    return f"{group.group.kind.value} {group.group.subject}"


def _versions(comparison: Comparison) -> dict[str, str]:
    return {name: text for o in comparison.observations for name, text in o.versions.items()}
