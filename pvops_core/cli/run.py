"""``pvops run``: the built-in guest once, on one backend."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import attrs
import typer

from pvops_core.cli import runs
from pvops_core.cli.common import STDOUT, ExitCode, JsonOption, PluginOption, printable, write_json
from pvops_core.compare.costs import COSTS, quantity
from pvops_core.compare.document import run_document
from pvops_core.compare.executor import execute
from pvops_core.compare.limits import Limits
from pvops_core.compare.plan import Workload, choose, machine_kinds
from pvops_core.compare.wire import Request
from pvops_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pvops_core.compare.cell import Cell
    from pvops_core.compare.observation import Observation
    from pvops_core.kinds import MachineKind

_MOST_NAMES = 5


def run(
    *,
    backend: Annotated[str, typer.Option(metavar="NAME", help="The backend.")] = "native",
    layout: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Paravirt layout; the first that the backend can be if not given."),
    ] = None,
    cmdline: Annotated[str, typer.Option(metavar="TEXT", help="The guest's command line.")] = "",
    cpus: runs.CpusOption = 1,
    seed: runs.SeedOption = 0,
    memory: runs.MemoryOption = runs.DEFAULT_MEMORY,
    max_seconds: runs.MaxSecondsOption = runs.DEFAULT_MAX_SECONDS,
    events: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the event log, one JSON object a line.")
    ] = None,
    json: JsonOption = None,
    plugin: PluginOption = None,
) -> int:
    """Run the built-in guest once, showing its console, and tell what the run was made of.

    Exit code: 0 the guest came to its end, 6 it crashed or timed out, 4 pvops or a plugin failed.
    """
    runs.check_folders(events, json)
    plugins = tuple(plugin or ())
    loaded = runs.load(plugins)
    if backend in runs.broken_names(loaded):
        return ExitCode.FAULT
    backends = loaded.backends
    (name,) = choose("backend", [backend], list(backends))
    chosen, kind = _layout(name, machine_kinds(backends[name], backends), layout)
    cell = Workload(cmdline, seed, cpus, memory << 20).cell(name, chosen, kind)
    request = Request(cell, plugins, events=str(events) if events else None)
    text = sys.stderr if json == STDOUT else sys.stdout
    (observation,) = execute([request], listener=_Echo(text), limits=Limits(wall_s=max_seconds))
    write_json("run", run_document(observation), json)
    for line in _summary(observation):
        text.write(f"{line}\n")
    return observation.outcome.exit_code


@attrs.frozen
class _Echo:
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


def _layout(backend: str, kinds: Collection[MachineKind], wanted: str | None) -> tuple[str, MachineKind]:
    """The wanted layout, or the first that runs on one of the backend's machine kinds.

    Raises:
        UsageError: there is no such layout, or the backend cannot run it.
    """
    there = runs.builtin_layouts()
    candidates = choose("layout", [wanted] if wanted else [], list(there))
    for name in candidates:
        if there[name] in kinds:
            return name, there[name]
    can_be = ", ".join(sorted(kind.value for kind in kinds))
    raise UsageError(f"backend {backend!r} cannot run layout {', '.join(candidates)}: its machine kinds are {can_be}")


def _summary(observation: Observation) -> Iterator[str]:
    yield _row("outcome", ": ".join(filter(None, (observation.outcome.value, printable(observation.reason)))))
    if not observation.outcome.finished and observation.detail:
        yield from observation.detail.splitlines()
    if not observation.measured:
        return
    yield _row("results", ", ".join(f"{word} {value}" for word, value in observation.results.items()))
    yield _row("sites", _named(observation.sites_by_form))
    named = {"op_calls": observation.op_calls, "traps": observation.traps, "hypercalls": observation.hypercalls}
    for cost in COSTS:
        text = quantity(cost.of(observation), cost.unit)
        most = _named(named.get(cost.key, {}))
        yield _row(cost.title, f"{text} ({most})" if most else text)
    yield _row("event log", observation.event_log_sha256)
    yield _row("text", observation.text_sha256)


def _row(name: str, text: str) -> str:
    return f"{name:<20}{text}".rstrip()


def _named(counter: Mapping[str, int]) -> str:
    """The most frequent names with their counts."""
    ordered = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{name} {number:,}" for name, number in ordered[:_MOST_NAMES] if number]
    return ", ".join([*shown, "…"] if len(ordered) > _MOST_NAMES else shown)
