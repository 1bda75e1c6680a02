"""The comparison as columns of text, as many and as wide as a terminal has room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from pvops_core.runs.costs import BOOT_COSTS, COSTS, Charged, Cost, known, quantity
from pvops_core.runs.observation import SITE_FORMS, Observation

NOT_MEASURED = "-"
_SHORT = {"page-table updates": "PT upd", "TLB flushes": "flush", "hypercalls": "hcalls", "instructions": "insns"}
_SITES = "call sites"
_TERSE = ("inlined", "direct", "indirect")


@attrs.frozen
class Column:
    """One column of a table of runs.

    Attributes:
        title: its head.
        text: what it says of one run.
        about: what is counted, in a line.
        over: what it has in common with those beside it; empty for nothing.
    """

    title: str
    text: Callable[[Observation], str]
    about: str = ""
    over: str = ""


@attrs.frozen
class Columns:
    """A set of columns.

    Attributes:
        columns: from left to right.
        gap: blanks between two of them.
    """

    columns: tuple[Column, ...]
    gap: int = 2

    def widths(self, observations: Sequence[Observation]) -> tuple[int, ...]:
        """Width of each column over all runs, so that the tables of all groups line up."""
        return tuple(
            max(len(word) for word in [*column.title.split(), *(column.text(o) for o in observations)])
            for column in self.columns
        )

    def total_width(self, observations: Sequence[Observation]) -> int:
        """Characters that all of them take in a line, a gap before each."""
        return sum(width + self.gap for width in self.widths(observations))


def fitting(observations: Sequence[Observation], width: int, leading: int) -> Columns:
    """The fullest set of columns that fits ``width`` characters beside ``leading`` others.

    Where not even the tersest fits, its last columns are left out.

    Args:
        observations: all that will be shown.
        width: of the terminal.
        leading: width of the two columns that come before, without the gap between them.
    """
    full, short, terse = every_column(observations), _short(), _terse()
    roomy, dense = attrs.evolve(full, gap=3), attrs.evolve(short, gap=1)
    sets = (roomy, full, short, dense, attrs.evolve(terse, gap=1))
    narrow = (
        attrs.evolve(terse, gap=1, columns=terse.columns[:number]) for number in range(len(terse.columns) - 1, 0, -1)
    )
    fits = (each for each in (*sets, *narrow) if leading + each.gap + each.total_width(observations) <= width)
    return next(fits, attrs.evolve(terse, gap=1, columns=terse.columns[:1]))


def repeatable(observations: Sequence[Observation]) -> Columns:
    """As the fullest set, without wall time: what is the same in every run with one seed."""
    wall = next(cost.title for cost in COSTS if cost.key == "wall_s")
    return Columns(tuple(column for column in every_column(observations).columns if column.title != wall))


def abbreviated(value: float) -> str:
    """A count in at most five characters up to a thousand billions."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            scaled = value / (1e3 if suffix == "k" else size)
            return f"{scaled:.1f}{suffix}" if scaled < 100 else f"{scaled:.0f}{suffix}"
    return f"{value:.0f}"


def every_column(observations: Sequence[Observation]) -> Columns:
    """Every cost in full, and every form of site that occurs, in the order of every table of runs."""
    of_kernel = any(observation.cell.group.of_kernel for observation in observations)
    calls, own, *others = BOOT_COSTS if of_kernel else COSTS
    forms = (_form(form) for form in forms_of(observations))
    columns = (_exact(calls), _exact(own), *forms, *(_exact(cost) for cost in others))
    if of_kernel:  # of which some is counted on demand alone
        columns = tuple(each for each in columns if any(each.text(o) != NOT_MEASURED for o in observations))
    return Columns(columns)


def forms_of(observations: Sequence[Observation]) -> list[str]:
    """The forms of sites: those that tell most, and what others occur."""
    forms = {form for o in observations for form, number in o.sites_by_form.items() if number}
    ordered = [*_TERSE, *(form for form in SITE_FORMS if form in forms - {*_TERSE})]
    return ordered + sorted(forms - {*SITE_FORMS})


def _short() -> Columns:
    """Every cost, counts abbreviated, and the three forms of site that tell most."""
    calls, own, *others = COSTS
    return Columns((_brief(calls), _brief(own), *(_form(form) for form in _TERSE), *(_brief(cost) for cost in others)))


def _terse() -> Columns:
    """As ``_short``, the forms of site in one column, without wall time."""
    calls, own, *others = (cost for cost in COSTS if cost.key != "wall_s")
    sites = _column("inlined /direct /indirect", _joined_forms)
    return Columns((_brief(calls), _brief(own), sites, *(_brief(cost) for cost in others)))


def _joined_forms(observation: Observation) -> str:
    forms = observation.sites_by_form
    return "/".join(str(forms[form]) for form in _TERSE)


def _column(title: str, text: Callable[[Observation], str]) -> Column:
    return Column(title, lambda observation: text(observation) if observation.measured else NOT_MEASURED)


def _form(form: str) -> Column:
    column = _column(form, lambda observation: quantity(observation.sites_by_form.get(form, 0)))
    return attrs.evolve(column, about=f"call sites that are {form} at the end", over=_SITES)


def _exact(cost: Cost[Charged]) -> Column:
    def text(observation: Observation) -> str:
        return quantity(cost.of(observation), cost.unit) if known(cost, observation) else NOT_MEASURED

    return Column(cost.title, text, cost.explanation)


def _brief(cost: Cost[Charged]) -> Column:
    def text(observation: Observation) -> str:
        value = cost.of(observation)
        return quantity(value, cost.unit) if cost.unit else abbreviated(value)

    return _column(_SHORT.get(cost.title, cost.title), text)
