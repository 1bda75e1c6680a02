"""``pvops scenario``: a failure of the past, played again with its evidence, and the way it was mended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pvops_core.backends.choices import parse_choices
from pvops_core.cli.common import STDOUT, ExitCode, JsonOption, print_table, progress, write_json
from pvops_core.cli.options.runoptions import SeedOption, SetOption  # noqa: TC001 - typer reads the annotation
from pvops_core.errors import UsageError

if TYPE_CHECKING:
    from pvops_core.scenarios import Performance

_PIPED_WIDTH = 120


def scenario(
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Scenario to play; without one they are listed.")
    ] = None,
    list_all: Annotated[bool, typer.Option("--list", help="List the scenarios, one line each.")] = False,
    kernel: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Play it on this kernel, one of the scenario's age, not on the built-in guest."
        ),
    ] = None,
    initrd: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The kernel's initial ramdisk; without one it ends where it looks for a root."
        ),
    ] = None,
    cmdline: Annotated[
        str, typer.Option(metavar="TEXT", help="More for the kernel's command line, which has its console.")
    ] = "",
    seed: SeedOption = 0,
    settings: SetOption = None,
    json: JsonOption = None,
) -> int:
    """Play a failure of the past again.

    The old behaviour must fail for the reason that history gives, and the one that mended it must work: on the
    built-in guest or, with --kernel, on a kernel of those days, from which the fix is taken away and given back.

    Exit code: 0 as history says, 5 not so, 4 pvops or a plugin failed, 2 the kernel is not of the scenario's age.
    """
    from pvops_core.scenarios import SCENARIOS  # noqa: PLC0415 - heavy
    from pvops_core.scenarios.document import ListedScenario, ScenarioList, scenario_result  # noqa: PLC0415

    if name is None or list_all:
        found = {each.name: each.summary for each in SCENARIOS.values()}
        write_json("scenario", ScenarioList(tuple(ListedScenario(*each) for each in found.items())), json)
        if json != STDOUT:
            print_table(("scenario", "what it shows"), found.items())
        return ExitCode.FINE
    from pvops_core.scenarios.child import KernelFiles, play_apart  # noqa: PLC0415

    if kernel is None and (initrd is not None or cmdline):
        raise UsageError("--initrd and --cmdline are of a kernel: give one by --kernel")
    files = None if kernel is None else KernelFiles(str(kernel), None if initrd is None else str(initrd), cmdline)
    with progress(f"playing {name}"):
        performance = play_apart(name, seed, parse_choices(settings or ()), files)
    write_json("scenario", scenario_result(performance), json)
    if json != STDOUT:
        _print(performance)
    return ExitCode.FINE if performance.honest else ExitCode.DIFFERENCE


def _print(performance: Performance) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for JSON

    from pvops_core.scenarios.text import print_performance  # noqa: PLC0415

    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(highlight=False, width=_PIPED_WIDTH)
    print_performance(performance, console)
