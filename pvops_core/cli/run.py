"""``pvops run``: the built-in guest once, on one backend."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pvops_core.backends.choices import choices_for, parse_choices
from pvops_core.cli.common import STDOUT, ExitCode, JsonOption, PluginOption, write_json
from pvops_core.cli.options import runoptions
from pvops_core.cli.options.workerlimits import worker_limits
from pvops_core.cli.output import switched
from pvops_core.cli.output.hookoutput import HookOutputOption, heard, terminal
from pvops_core.cli.output.summary import Echo, summary
from pvops_core.errors import UsageError, printable
from pvops_core.runs.observation import Outcome
from pvops_core.runs.orders import SwitchOrder
from pvops_core.runs.plan import Workload, choose, machine_kinds
from pvops_core.runs.pool import execute
from pvops_core.runs.wire import Request

if TYPE_CHECKING:
    from collections.abc import Collection

    from pvops_core.kinds import MachineKind

ExploreOption = Annotated[
    int | None,
    typer.Option(
        min=2,
        metavar="N",
        help="Run N seeds from --seed on, each another schedule of the CPUs, and show the first with another result "
        "than the first seed's, and where the two event logs first differ. --events FILE keeps both, as FILE.SEED.",
    ),
]


def run(
    *,
    backend: Annotated[str, typer.Option(metavar="NAME", help="Backend to run on.")] = "native",
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Layout of the table of ops, such as 6.1-64; the first that the backend can be if not given.",
        ),
    ] = None,
    cmdline: Annotated[str, typer.Option(metavar="TEXT", help="Command line of the guest.")] = "",
    cpus: runoptions.CpusOption = 1,
    seed: runoptions.SeedOption = 0,
    explore: ExploreOption = None,
    memory: runoptions.MemoryOption = runoptions.DEFAULT_MEMORY,
    max_seconds: runoptions.MaxSecondsOption = runoptions.DEFAULT_MAX_SECONDS,
    switch: runoptions.SwitchOption = None,
    settings: runoptions.SetOption = None,
    events: runoptions.EventsOption = None,
    pdb: runoptions.PdbOption = False,
    gdb: runoptions.GdbOption = None,
    wait: runoptions.WaitOption = False,
    hook_output: HookOutputOption = None,
    json: JsonOption = None,
    plugin: PluginOption = None,
) -> int:
    """Run the built-in guest once.

    Shows the guest's console, then what the run was made of: op calls, traps, hypercalls, sites, times, hashes.

    Exit code: 0 the guest came to its end, 2 the backend cannot be what is asked for, 5 a switch was refused or
    --explore found another result, 6 the guest crashed or timed out, 4 pvops or a plugin failed.
    """
    runoptions.check_folders(events, json, hook_output)
    plugins = tuple(plugin or ())
    loaded = runoptions.load(plugins)
    if runoptions.are_broken(loaded, plugins, backend):
        return ExitCode.FAULT
    backends = loaded.backends
    (name,) = choose("backend", [backend], list(backends))
    chosen, kind = _layout(name, machine_kinds(backends[name], backends), layout)
    choices = choices_for([name], parse_choices(settings or ()), backends)
    cell = Workload(cmdline, seed, cpus, memory << 20, choices).cell(name, chosen, kind)
    limits = worker_limits(max_seconds, cell.memory)
    orders = tuple(map(SwitchOrder.parse, switch or ()))
    log, broken = str(events) if events else None, loaded.broken
    debugging = runoptions.debug_orders(gdb, wait=wait)
    request = Request(
        cell, plugins, without=broken, max_seconds=max_seconds, events=log, switches=orders, gdb=debugging, pdb=pdb
    )
    if explore and (debugging or pdb):
        raise UsageError(f"--{'gdb' if debugging else 'pdb'} goes with one run: --explore makes many")
    if explore:
        from pvops_core.cli.explore import explore as schedules  # noqa: PLC0415 - one run does without

        return schedules(request, explore, limits, json)
    text = sys.stderr if json == STDOUT else sys.stdout
    with heard(hook_output) as hooks, terminal() as given:
        (observation,) = execute([request], listener=Echo(text), limits=limits, on_said=hooks.said, terminal=given)
    if observation.outcome is Outcome.UNSUPPORTED:
        raise UsageError(observation.reason)
    write_json("run", observation, json)
    for line in (*summary(observation), *switched.lines(observation)):
        text.write(f"{printable(line)}\n")
    return observation.outcome.exit_code or switched.exit_code(observation)


def _layout(backend: str, kinds: Collection[MachineKind], wanted: str | None) -> tuple[str, MachineKind]:
    """The wanted layout, or the first that runs on one of the backend's machine kinds.

    Raises:
        UsageError: there is no such layout, or the backend cannot run it.
    """
    there = runoptions.builtin_layouts()
    candidates = choose("layout", [wanted] if wanted else [], list(there))
    for name in candidates:
        if there[name] in kinds:
            return name, there[name]
    can_be = ", ".join(sorted(kind.value for kind in kinds))
    raise UsageError(f"backend {backend!r} cannot run layout {', '.join(candidates)}: its machine kinds are {can_be}")
