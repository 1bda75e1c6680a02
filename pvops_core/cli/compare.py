"""``pvops compare``: one guest on several backends; are the results equal, and what does each cost?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pvops_core.cli import runs
from pvops_core.cli.common import STDOUT, JsonOption, PluginOption, write_file, write_json
from pvops_core.compare.comparison import Comparison, grouped, unsupported
from pvops_core.compare.document import compare_document
from pvops_core.compare.executor import execute
from pvops_core.compare.limits import Limits
from pvops_core.compare.plan import Plan, Workload, bases_first, choose, machine_kinds, plan_builtin
from pvops_core.compare.progress import ProgressListener
from pvops_core.compare.wire import Request
from pvops_core.kinds import MachineKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pvops_core.plugins import Loaded

_PIPED_WIDTH = 160
_HINT = "More: --html FILE for a page with plots, every op and the consoles; --json FILE for every number."


def compare(
    *,
    backends: Annotated[
        str, typer.Option(metavar="A,B", help="Backends to compare; all that are installed if not given.")
    ] = "",
    layouts: Annotated[
        str,
        typer.Option(
            metavar="A,B", help="Layouts of the table of ops (one guest each), such as 6.1-64; all if not given."
        ),
    ] = "",
    kinds: Annotated[
        str, typer.Option(metavar="A,B", help="Only layouts of these machine kinds: i386, pae, x86_64.")
    ] = "",
    workload: Annotated[str, typer.Option(metavar="TEXT", help="Command line of the guest.")] = "",
    cpus: runs.CpusOption = 1,
    seed: runs.SeedOption = 0,
    memory: runs.MemoryOption = runs.DEFAULT_MEMORY,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Runs at once; one for each CPU if not given.")
    ] = None,
    max_seconds: runs.MaxSecondsOption = runs.DEFAULT_MAX_SECONDS,
    json: JsonOption = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with the table, plots, every op and the consoles.")
    ] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table as a picture.")] = None,
    plugin: PluginOption = None,
) -> int:
    """Compare backends on one guest.

    Runs the built-in guest on every backend. Are the results equal, and what does each backend cost?

    Exit code: 0 equal, 5 results differ, 6 a guest crashed or timed out, 4 pvops or a plugin failed, 3 nothing ran.
    """
    runs.check_folders(html, svg, json)
    plugins = tuple(plugin or ())
    loaded = runs.load(plugins)
    wanted = runs.names(backends)
    chosen_layouts = _layouts(runs.names(layouts), runs.names(kinds))
    plan = _plan(loaded, wanted, chosen_layouts, Workload(workload, seed, cpus, memory << 20))
    requests = [Request(cell, plugins) for cell in plan.cells]
    with ProgressListener(len(requests)) as listener:
        observations = execute(requests, listener=listener, jobs=jobs, limits=Limits(wall_s=max_seconds))
    given = {
        "backends": ",".join(wanted),
        "layouts": ",".join(chosen_layouts) if layouts or kinds else "",
        "workload": workload,
        "cpus": cpus,
        "seed": seed,
        "memory": memory,
        "plugin": plugins,
    }
    comparison = Comparison(
        grouped(observations),
        (*plan.skipped, *unsupported(observations)),
        tuple(loaded.errors),
        plugin_errors_count=not wanted
        or not loaded.backends.keys() >= set(wanted)
        or any(error.distribution in plugins for error in loaded.errors),
        command=runs.again("compare", given),
    )
    _report(comparison, json, html, svg)
    return comparison.exit_code


def _layouts(wanted: Sequence[str], kinds: Sequence[str]) -> dict[str, MachineKind]:
    """The wanted layouts that are of a wanted kind.

    Raises:
        UsageError: an unknown name.
    """
    there = runs.builtin_layouts()
    of_kinds = choose("machine kind", kinds, [kind.value for kind in MachineKind])
    return {name: there[name] for name in choose("layout", wanted, list(there)) if there[name].value in of_kinds}


def _plan(loaded: Loaded, wanted: Sequence[str], layouts: dict[str, MachineKind], workload: Workload) -> Plan:
    """The cells of the wanted backends; one that was asked for and is broken has been told of, and is left out.

    Raises:
        UsageError: a backend that is not there at all.
    """
    whole = [name for name in wanted if name not in runs.broken_names(loaded)]
    if wanted and not whole:
        return Plan((), ())
    chosen = choose("backend", whole, bases_first(loaded.backends))
    return plan_builtin(
        {name: machine_kinds(loaded.backends[name], loaded.backends) for name in chosen}, layouts, workload
    )


def _report(comparison: Comparison, json: str | None, html: Path | None, svg: Path | None) -> None:
    write_json("compare", compare_document(comparison), json)
    if html:
        from pvops_core.compare.page import page  # noqa: PLC0415 - loads the plotter

        write_file(html, page(comparison).encode())
    if svg:
        from pvops_core.compare.picture import picture  # noqa: PLC0415 - loads rich's renderer

        write_file(svg, picture(comparison, "pvops compare").encode())
    if json == STDOUT:
        return
    from rich.console import Console  # noqa: PLC0415 - not needed for JSON

    from pvops_core.compare.text import print_comparison  # noqa: PLC0415

    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(highlight=False, width=_PIPED_WIDTH)
    print_comparison(comparison, console)
    if not (json or html or svg):
        console.print(_HINT, style="dim")
