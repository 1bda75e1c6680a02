"""What the verbs that make one run show of it: the console as it comes, then what the run was made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

import attrs

from pvops_core.runs.costs import COSTS, known, per_round, quantity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pvops_core.runs.cell import Cell
    from pvops_core.runs.observation import Observation

_MOST_NAMES = 5


@attrs.frozen
class Echo:
    """Passes the guest's console on as it comes."""

    text: TextIO

    def started(self, cell: Cell) -> None:
        """Nothing to say yet."""

    def console(self, cell: Cell, text: str) -> None:
        """Show it now."""
        del cell
        self.text.write(text)
        self.text.flush()

    def finished(self, observation: Observation) -> None:
        """The summary follows on a line of its own."""
        if observation.console and not observation.console.endswith("\n"):
            self.text.write("\n")


def summary(observation: Observation) -> Iterator[str]:
    """The lines that tell of a run, for a person."""
    yield _row("outcome", ": ".join(filter(None, (observation.outcome.value, observation.reason))))
    if not observation.outcome.finished and observation.detail:
        yield from observation.detail.splitlines()
    if not observation.measured:
        return
    given, started = observation.cell.vcpus, observation.vcpus_started
    if started < given:
        yield _row("CPUs", f"{started} of {given} started: the guest left the others alone")
    if observation.results:
        yield _row("results", ", ".join(f"{word} {value}" for word, value in observation.results.items()))
    if observation.sites:
        yield _row("sites", _named(observation.sites_by_form))
    named = {
        "op_calls": observation.counts.ops,
        "own_calls": observation.counts.own,
        "traps": observation.counts.platform.traps,
        "hypercalls": observation.counts.platform.hypercalls,
    }
    for cost in COSTS:
        if not known(cost, observation):
            continue  # nothing was counted, which is not nothing
        text = quantity(cost.of(observation), cost.unit)
        text += " (orders what happens; no measure of a backend)" if cost.key == "virtual_ns" else ""
        most = _named(named.get(cost.key, {}))
        yield _row(cost.title, f"{text} ({most})" if most else text)
    for line in observation.unused:
        yield _row("unused", line)
    yield from _on_the_way(observation)
    yield _row("event log", observation.event_log_sha256)
    yield _row("text", observation.text_sha256)


def _on_the_way(observation: Observation) -> Iterator[str]:
    for name, rounds in observation.rounds.items():
        costs = (f"{cost.title} {per_round(cost, rounds)}" for cost in COSTS if cost.of(rounds.total))
        yield _row(f"a round of {name}", ", ".join(costs))
    for name, point in observation.points.items():
        seconds = f"{point.virtual_ns / 1e9:.3f} s virtual, {point.wall_s:.1f} s"
        yield _row(f"at {name}", seconds)


def _row(name: str, text: str) -> str:
    return f"{name:<20}{text}".rstrip()


def _named(counter: Mapping[str, int]) -> str:
    """The most frequent names with their counts."""
    ordered = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{name} {number:,}" for name, number in ordered[:_MOST_NAMES] if number]
    return ", ".join([*shown, "…"] if len(ordered) > _MOST_NAMES else shown)
