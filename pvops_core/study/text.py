"""What a study came to, for a terminal: the verdict first, then what differs, medians, ratios, outliers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich import box
from rich.table import Table
from rich.text import Text

from pvops_core.errors import printable
from pvops_core.runs.costs import NO_MEASURE, quantity
from pvops_core.study.answers import POINT, titled
from pvops_core.study.rows import COSTS, ROUND_COSTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from pvops_core.study.answers import Answers, Outlier, Series
    from pvops_core.study.rows import Row
    from pvops_core.study.statistics import Spread

MOST: Final = 10
TERMINAL_COSTS: Final = (
    *(key for key in ROUND_COSTS if key != "round_own_calls"),
    "op_calls", "traps", "hypercalls", "page_table_updates", "tlb_flushes", "instructions", "virtual_ns", "wall_s",
)  # fmt: skip


def print_answers(
    answers: Answers, console: Console, replay: Callable[[Row], str], costs: Sequence[str] = TERMINAL_COSTS
) -> None:
    """Print all of it."""
    fine = answers.exit_code == 0
    console.print(Text(answers.verdict, style="bold green" if fine else "bold red"))
    _listed(
        [
            (f"{titled(o.row.axes, answers.varying)}: {_differs(o.field)} {titled(o.expected.axes, ())}", o.row)
            for o in answers.odd
        ],
        console,
        replay,
    )
    _listed(
        [
            (f"{titled(row.axes, answers.varying)}: {row.measured.outcome.value}: {row.measured.reason}", row)
            for row in answers.failures
        ],
        console,
        replay,
    )
    if reasons := dict.fromkeys(row.measured.reason for row in answers.unsupported):
        console.print(Text(printable(f"Not run: {'; '.join(reasons)}."), style="dim"))
    shown = [cost for cost in costs if cost in answers.costs]
    if shown:
        console.print(_table(answers, shown, _median))
        if any(each.backend != answers.reference for each in answers.series):
            console.print(Text(f"As a multiple of {answers.reference}, with the 95 % interval over seeds and repeats:"))
            console.print(
                _table(answers, [cost for cost in shown if cost != "virtual_ns"], _ratio, but=answers.reference)
            )
        console.print(Text(NO_MEASURE, style="dim"))
    _listed([(_outlier(answers, each), each.row) for each in answers.outliers], console, replay, "Far from the others:")


def _outlier(answers: Answers, each: Outlier) -> str:
    cost = COSTS[each.cost]
    usual = quantity(each.median, cost.unit)
    return f"{titled(each.row.axes, answers.varying)}: {cost.title} {quantity(each.value, cost.unit)}, usually {usual}"


def _differs(field: str) -> str:
    return "another result than" if field == "results" else "not the same events as"


def _listed(lines: Sequence[tuple[str, Row]], console: Console, replay: Callable[[Row], str], title: str = "") -> None:
    if lines and title:
        console.print(Text(title))
    for line, row in lines[:MOST]:
        console.print(Text(f"  {printable(line)}"), soft_wrap=True)
        console.print(Text(f"    {replay(row)}", style="dim"), soft_wrap=True)
    if len(lines) > MOST:
        console.print(Text(f"  … and {len(lines) - MOST:,} more", style="dim"))


def _table(answers: Answers, costs: Sequence[str], text: Callable[[Spread, str], str], but: str = "") -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in (*answers.varying, "backend"):
        table.add_column(name, overflow="fold")
    table.add_column("runs", justify="right")
    for cost in costs:
        table.add_column(COSTS[cost].title, justify="right")
    for each in answers.series:
        if each.backend != but:
            cells = [text(each.spreads[cost], cost) if cost in each.spreads else "-" for cost in costs]
            table.add_row(*_places(answers, each), Text(each.backend), str(len(each.rows)), *cells)
    return table


def _places(answers: Answers, series: Series) -> list[Text]:
    return [Text(printable(str(series.point[POINT.index(name)]))) for name in answers.varying]


def _median(spread: Spread, cost: str) -> str:
    unit = COSTS[cost].unit
    if spread.low == spread.high:
        return quantity(spread.median, unit)
    return f"{quantity(spread.median, unit)}\n{quantity(spread.low, unit)}..{quantity(spread.high, unit)}"


def _ratio(spread: Spread, cost: str) -> str:
    del cost
    if spread.ratio is None:
        return "-"
    if spread.ratio_low is None or spread.ratio_high is None or spread.ratio_low == spread.ratio_high:
        return f"{spread.ratio:.3g}"
    return f"{spread.ratio:.3g} [{spread.ratio_low:.3g}, {spread.ratio_high:.3g}]"
