"""A comparison as text for a person: a table for each group, the verdict, what differs and what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pvops_core.compare.columns import Columns, fitting

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from pvops_core.compare.comparison import Comparison, GroupResult, Skipped
    from pvops_core.compare.observation import Observation

_MOST_DIFFERENCES = 5
_MOST_DETAIL_LINES = 12
_STATE_STYLES = {"equal": "green", "reference": "", "alone": "dim"}


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Everything but how to get more of it."""
    states = [group_state(group, o) for group in comparison.groups for o in group.observations]
    lead = (
        max([len("backend"), *(len(o.cell.backend) for o in comparison.observations)]),
        max([len("results"), *(len(state) for state in states)]),
    )
    columns = fitting(comparison.observations, console.width, sum(lead))
    widths = (*lead, *columns.widths(comparison.observations))
    for group in comparison.groups:
        console.print(_title(group))
        console.print(_table(group, columns, widths))
        console.print()
    _print_skipped(comparison.skipped, console)
    _print_verdict(comparison, console)


def group_state(group: GroupResult, observation: Observation) -> str:
    """One word on a run's results beside the others of its group."""
    if not observation.outcome.finished:
        return observation.outcome.value
    if len(group.observations) == 1:
        return "alone"
    if any(d.backend == observation.cell.backend for d in group.differences):
        return "DIFFERENT"
    return "reference" if observation is group.reference and group.differences else "equal"


def _title(group: GroupResult) -> Text:
    return Text(group.group.title, style="bold")


def _table(group: GroupResult, columns: Columns, widths: Sequence[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, columns.gap, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("backend", width=widths[0], no_wrap=True)
    table.add_column("results", width=widths[1], no_wrap=True)
    for column, width in zip(columns.columns, widths[2:], strict=True):
        table.add_column(column.title, justify="right", width=width, vertical="bottom")
    for observation in group.observations:
        state = group_state(group, observation)
        style = _STATE_STYLES.get(state, "bold red")
        cells = (column.text(observation) for column in columns.columns)
        table.add_row(Text(observation.cell.backend), Text(state, style=style), *cells)
    return table


def _print_skipped(skipped: Iterable[Skipped], console: Console) -> None:
    reasons: dict[str, list[str]] = {}
    for each in skipped:
        reasons.setdefault(each.reason, []).append(each.layout)
    for reason, layouts in reasons.items():
        console.print(Text(f"Not run: {reason} ({', '.join(layouts)}).", style="dim"))


def _print_verdict(comparison: Comparison, console: Console) -> None:
    console.print(Text(comparison.verdict, style="bold green" if comparison.equal else "bold red"))
    for group in comparison.groups:
        if not group.equal:
            console.print(f"\n[bold]{escape(group.group.title)}[/]")
            _print_failures(group.failures, console)
            _print_differences(group, console)


def _print_failures(failures: Iterable[Observation], console: Console) -> None:
    for failure in failures:
        console.print(Text(f"  {failure.cell.backend}: {failure.outcome.value}: {failure.reason}"))
        told = failure.detail or failure.console
        for line in told.splitlines()[-_MOST_DETAIL_LINES:]:
            console.print(Text(f"    | {line}", style="dim"))


def _print_differences(group: GroupResult, console: Console) -> None:
    for difference in group.differences[:_MOST_DIFFERENCES]:
        console.print(Text(f"  {difference}"))
    if more := len(group.differences[_MOST_DIFFERENCES:]):
        console.print(Text(f"  … and {more} more", style="dim"))
