"""A comparison as text for a person: a table for each group, the verdict, what differs and what failed."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pvops_core.compare.boottext import print_boots
from pvops_core.compare.columns import Columns, fitting
from pvops_core.errors import printable
from pvops_core.runs.costs import NO_MEASURE
from pvops_core.runs.inside import OURS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console

    from pvops_core.compare.comparison import Comparison, GroupResult
    from pvops_core.runs.observation import Observation
    from pvops_core.runs.plan import Skipped

_MOST_DIFFERENCES = 5
_MOST_DETAIL_LINES = 24
_STATE_STYLES = {"equal": "green", "reference": "", "alone": "dim"}


def print_comparison(comparison: Comparison, console: Console, columns: Columns | None = None) -> None:
    """Everything but how to get more of it.

    Args:
        comparison: what to print.
        console: where to.
        columns: those of the tables; by default as many as the console has room for.
    """
    if comparison.of_kernel:
        for group in comparison.groups:
            print_boots(group, console, comparison.choice)
            console.print()
    else:
        _print_groups(comparison, console, columns)
    if comparison.groups:
        console.print(Text(NO_MEASURE, style="dim"))
    _print_skipped(comparison.skipped, console)
    _print_verdict(comparison, console)


def _print_groups(comparison: Comparison, console: Console, columns: Columns | None) -> None:
    states = [group_state(group, o) for group in comparison.groups for o in group.observations]
    lead = (
        max([len("backend"), *(len(o.cell.backend) for o in comparison.observations)]),
        max([len("results"), *(len(state) for state in states)]),
    )
    columns = columns or fitting(comparison.observations, console.width, sum(lead))
    widths = (*lead, *columns.widths(comparison.observations))
    if comparison.groups:
        console.print(_over(columns, widths))
        console.print(_head(columns, widths))
    for group in comparison.groups:
        console.print(_title(group))
        console.print(_rows(group, columns, widths))
        for observation in group.observations:
            for line in told_unused(observation):
                console.print(Text(printable(f"{observation.cell.backend}: {line}"), style="yellow"), soft_wrap=True)
        console.print()


def told_unused(observation: Observation) -> Iterator[str]:
    """Ops of its own that had no effect: it is their author who wants to know of one that was never called."""
    for use in observation.own.values() if observation.unused else ():
        if use.told and not (use.becomes == "uncalled" and observation.cell.backend in OURS):
            yield use.told


def group_state(group: GroupResult, observation: Observation) -> str:
    """One word on a run's results beside the others of its group."""
    if not observation.outcome.finished:
        return observation.outcome.value
    if group.group.of_kernel:
        return observation.outcome.value
    if len(group.observations) == 1:
        return "alone"
    if any(d.backend == observation.cell.backend for d in group.differences):
        return "DIFFERENT"
    return "reference" if observation is group.reference and group.differences else "equal"


def _title(group: GroupResult) -> Text:
    return Text(group.group.title, style="bold")


def _over(columns: Columns, widths: Sequence[int]) -> Text:
    """What columns beside each other have in common, above them; the two first are no such columns."""
    line, place = "", 0
    for over, members in itertools.groupby(("", "", *(each.over for each in columns.columns))):
        number = len(list(members))
        width = sum(widths[:number]) + columns.gap * (number - 1)
        line = f"{line:{place}}{f' {over} '.center(width, '─') if over else ''}"
        place, widths = place + width + columns.gap, widths[number:]
    return Text(line)


def _head(columns: Columns, widths: Sequence[int]) -> Table:
    """The columns' names, above all groups; the groups' tables have the same widths."""
    table = _columns(columns, widths)
    table.show_header = True
    return table


def _rows(group: GroupResult, columns: Columns, widths: Sequence[int]) -> Table:
    table = _columns(columns, widths)
    for observation in group.observations:
        state = group_state(group, observation)
        style = _STATE_STYLES.get(state, "bold red")
        cells = (column.text(observation) for column in columns.columns)
        table.add_row(Text(observation.cell.backend), Text(state, style=style), *cells)
    return table


def _columns(columns: Columns, widths: Sequence[int]) -> Table:
    padding = columns.gap - 1  # the box has a blank of its own between columns
    table = Table(box=box.SIMPLE_HEAD, padding=(0, padding, 0, 0), pad_edge=False, show_edge=False, show_header=False)
    titles = ("backend", "results", *(column.title for column in columns.columns))
    for title, width in zip(titles, widths, strict=True):
        justify: Literal["left", "right"] = "left" if title in titles[:2] else "right"
        table.add_column(title, justify=justify, width=width, vertical="bottom", no_wrap=justify == "left")
    return table


def _print_skipped(skipped: Iterable[Skipped], console: Console) -> None:
    reasons: dict[str, list[str]] = {}
    for each in skipped:
        reasons.setdefault(each.reason, []).append(each.layout)
    for reason, layouts in reasons.items():
        where = f" ({', '.join(layouts)})" if any(layouts) else ""
        console.print(Text(printable(f"Not run: {reason}{where}."), style="dim"))


def _print_verdict(comparison: Comparison, console: Console) -> None:
    console.print(Text(comparison.verdict, style="bold green" if comparison.equal else "bold red"))
    for group in comparison.groups:
        if not group.equal:
            console.print(f"\n[bold]{escape(group.group.title)}[/]")
            _print_failures(group.failures, console)
            _print_differences(group, console)


def _print_failures(failures: Iterable[Observation], console: Console) -> None:
    for failure in failures:
        end = Text(printable(f"{failure.cell.backend}: {failure.outcome.value}: {failure.reason}"))
        console.print(Padding(end, (0, 0, 0, 2)))
        told = failure.detail or failure.console
        for line in told.splitlines()[-_MOST_DETAIL_LINES:]:
            console.print(Text(printable(f"    | {line}"), style="dim"))


def _print_differences(group: GroupResult, console: Console) -> None:
    for difference in group.differences[:_MOST_DIFFERENCES]:
        console.print(Padding(Text(printable(str(difference))), (0, 0, 0, 2)))
    if more := len(group.differences[_MOST_DIFFERENCES:]):
        console.print(Text(f"  … and {more} more", style="dim"))
