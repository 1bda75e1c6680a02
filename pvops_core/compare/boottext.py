"""A comparison of boots as text for a person: each backend is a column, since much is told of few."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich import box
from rich.table import Table
from rich.text import Text

from pvops_core.compare.bootdiff import boot_differences
from pvops_core.compare.columns import every_column
from pvops_core.compare.rounds import round_costs, round_rows
from pvops_core.errors import printable
from pvops_core.runs.costs import quantity
from pvops_core.runs.phases import PHASE_COLUMNS, phase_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from pvops_core.compare.bootdiff import BootDifference
    from pvops_core.compare.comparison import Choice, GroupResult
    from pvops_core.runs.observation import Observation

_MOST_OPS: Final = 10
_MOST_LINES: Final = 20


def print_boots(group: GroupResult, console: Console, choice: Choice) -> None:
    """Costs, phases, call sites and consoles of one kernel's boots."""
    console.print(Text(group.group.title, style="bold"))
    console.print(_costs(group.observations))
    if any(o.rounds for o in group.observations):
        console.print(_rounds(group.observations))
    if any(o.points for o in group.observations):
        console.print(_phases(group.observations, choice.phases))
    for difference in boot_differences(group):
        _print_sites(difference, choice, console)
        _print_lines(difference, console)


def _table(*heads: str, left: int = 1) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number < left else "right", no_wrap=number < left)
    return table


def _costs(observations: Sequence[Observation]) -> Table:
    table = _table("", *(o.cell.backend for o in observations))
    ends = (Text(o.outcome.value, style="" if o.outcome.finished else "bold red") for o in observations)
    table.add_row("outcome", *ends)
    for column in every_column(observations).columns:
        name = " ".join(filter(None, (column.over, column.title)))
        table.add_row(name, *(column.text(o) for o in observations))
    table.add_row("console lines", *(quantity(o.console.count("\n")) for o in observations))
    return table


def _rounds(observations: Sequence[Observation]) -> Table:
    table = _table("a round of", "backend", *(cost.title for cost in round_costs(observations)), left=2)
    before = ""
    for name, backend, texts in round_rows(observations):
        table.add_row("" if name == before else name, backend, *texts)
        before = name
    return table


def _phases(observations: Sequence[Observation], wanted: Sequence[str]) -> Table:
    table = _table("phase", "backend", *(column.title for column in PHASE_COLUMNS), left=2)
    before = ""
    for name, backend, amounts in phase_rows(observations, wanted):
        texts = (quantity(amounts.get(column.key, 0), column.unit) for column in PHASE_COLUMNS)
        table.add_row("" if name == before else name, backend, *texts)
        before = name
    return table


def _print_sites(difference: BootDifference, choice: Choice, console: Console) -> None:
    left, right = difference.reference, difference.other
    names = f"{left.cell.backend} and {right.cell.backend}"
    if not difference.compared:
        for o in (left, right):
            console.print(Text(printable(f"Call sites of {o.cell.backend}: {o.sites_note or 'not read'}")))
        return
    notes = " and ".join(dict.fromkeys(o.sites_note for o in (left, right)))
    total = f"{len(difference.sites):,} of {difference.compared:,} call sites differ"
    console.print(Text(printable(f"{total} between {names} ({notes})"), style="bold"))
    rows = sorted(
        (item for item in difference.by_op.items() if choice.wants(item[0])), key=lambda item: (-item[1], item[0])
    )
    table = _table("op", "sites", "differ", left.cell.backend, right.cell.backend)
    for op, differing in rows if choice.ops else rows[:_MOST_OPS]:
        table.add_row(op, quantity(difference.shared[op]), quantity(differing), _forms(left, op), _forms(right, op))
    console.print(table)
    if not choice.ops and len(rows) > _MOST_OPS:
        console.print(f"… and {len(rows) - _MOST_OPS} ops more: --ops '*'", style="dim")


def _forms(observation: Observation, op: str) -> str:
    forms = ", ".join(f"{number} {form}" for form, number in observation.sites.get(op, {}).items())
    calls = observation.counts.ops.get(op)
    return forms if calls is None else f"{forms}; {calls:,} calls"


def _print_lines(difference: BootDifference, console: Console) -> None:
    left, right = difference.reference.cell.backend, difference.other.cell.backend
    rows = difference.unlike
    of_left = sum(row.left is not None for row in rows)
    of_right = sum(row.right is not None for row in rows)
    alike = len(difference.lines) - len(rows)
    console.print(f"{alike:,} console lines are alike, {of_left:,} are {left}'s alone, {of_right:,} {right}'s")
    for row in rows[-_MOST_LINES:]:
        for mark, text, style in (("-", row.left, "red"), ("+", row.right, "green")):
            if text is not None:
                console.print(Text(printable(f"  {mark} {text}"), style=style), overflow="ellipsis", no_wrap=True)
