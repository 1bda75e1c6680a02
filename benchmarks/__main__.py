"""Print the table of benchmarks; see the package's docstring."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from benchmarks.measure import Result

MODULES = ("hook_trip", "straight", "snapshots", "switching", "livepatch", "kernel_patching", "startup", "hook_tests")


def row(result: Result) -> tuple[str, ...]:
    """The cells of one row."""
    floor = "" if result.floor is None else f"{result.floor:,.3g} {result.unit}"
    ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
    aim = f"{result.aim:g}" + ("" if result.floor is not None else f" {result.unit}")
    return (
        result.name,
        f"{result.value:,.4g} {result.unit}",
        floor,
        ratio,
        aim,
        "yes" if result.met else "no",
        result.of,
    )


def main(wanted: list[str]) -> None:
    """Run the benchmarks whose module's name contains one of the words; all without words."""
    table = Table(title="pvops benchmarks", caption="best of several repeats; ratio = figure / floor")
    for heading in ("what", "figure", "floor", "ratio", "aim", "met", "the floor is"):
        table.add_column(heading)
    for name in MODULES:
        if not wanted or any(word in name for word in wanted):
            for result in import_module(f"benchmarks.{name}").run():
                table.add_row(*row(result))
    Console(width=None if sys.stdout.isatty() else 150).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
