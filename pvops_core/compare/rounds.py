"""What one round of each workload was charged, beside each other by backend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from pvops_core.compare.columns import NOT_MEASURED
from pvops_core.runs.costs import BOOT_COSTS, known, per_round, quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pvops_core.runs.costs import Charged, Cost
    from pvops_core.runs.counts import Counts
    from pvops_core.runs.observation import Observation

_ASIDE: Final = {"ports", "msrs"}
"""What a round has of these is the timer's."""
_NAMED: Final[Mapping[str, Callable[[Counts], Mapping[str, int]]]] = {
    "op": lambda counts: counts.ops,
    "hypercall": lambda counts: counts.platform.hypercalls,
    "trap": lambda counts: counts.platform.traps,
}


def round_costs(observations: Sequence[Observation]) -> list[Cost[Charged]]:
    """The costs that a round of some workload was charged."""
    totals = [rounds.total for o in observations for rounds in o.rounds.values()]
    return [cost for cost in BOOT_COSTS if cost.key not in _ASIDE and any(map(cost.of, totals))]


def round_rows(observations: Sequence[Observation]) -> Iterator[tuple[str, str, list[str]]]:
    """Workload, backend, and each of those costs."""
    costs = round_costs(observations)
    for name in workloads_of(observations):
        for o in observations:
            rounds = o.rounds.get(name)
            yield (
                name,
                o.cell.backend,
                [per_round(cost, rounds) if rounds and known(cost, o) else NOT_MEASURED for cost in costs],
            )


def round_counters(observations: Sequence[Observation], workload: str) -> Iterator[tuple[str, str, list[str]]]:
    """Of one workload: what is counted, its name, and how often a round had it on each backend."""
    of_each = [o.rounds.get(workload) for o in observations]
    for kind, counted in _NAMED.items():
        counts = [counted(rounds.total.counts) if rounds else {} for rounds in of_each]
        for name in dict.fromkeys(name for each in counts for name in each):
            pairs = zip(counts, of_each, strict=True)
            yield (
                kind,
                name,
                [quantity(each.get(name, 0) / rounds.rounds) if rounds else NOT_MEASURED for each, rounds in pairs],
            )


def workloads_of(observations: Sequence[Observation]) -> list[str]:
    """The workloads of which some run made rounds, in order."""
    return list(dict.fromkeys(name for o in observations for name in o.rounds))
