"""``pvops scenario``: a failure of the past, played again with its evidence, and the way it was mended."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from pvops_core.backends.choices import parse_choices
from pvops_core.cli.common import STDOUT, ExitCode, JsonOption, print_table, progress, write_json
from pvops_core.cli.options.runoptions import SeedOption, SetOption  # noqa: TC001 - typer reads the annotation

if TYPE_CHECKING:
    from pvops_core.scenarios import Performance

_PIPED_WIDTH = 120


def scenario(
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Scenario to play; without one they are listed.")
    ] = None,
    list_all: Annotated[bool, typer.Option("--list", help="List the scenarios, one line each.")] = False,
    seed: SeedOption = 0,
    settings: SetOption = None,
    json: JsonOption = None,
) -> int:
    """Play a failure of the past again.

    The old behaviour must fail for the reason that history gives, and the one that mended it must work.

    Exit code: 0 as history says, 5 not so, 4 pvops or a plugin failed.
    """
    from pvops_core.scenarios import SCENARIOS  # noqa: PLC0415 - heavy

    if name is None or list_all:
        found = {each.name: each.summary for each in SCENARIOS.values()}
        write_json("scenario", {"scenarios": [{"name": name, "summary": text} for name, text in found.items()]}, json)
        if json != STDOUT:
            print_table(("scenario", "what it shows"), found.items())
        return ExitCode.FINE
    from pvops_core.scenarios.child import play_apart  # noqa: PLC0415
    from pvops_core.scenarios.document import scenario_document  # noqa: PLC0415

    with progress(f"playing {name}"):
        performance = play_apart(name, seed, parse_choices(settings or ()))
    write_json("scenario", scenario_document(performance), json)
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
