"""``python -m soak``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from soak import ledger, table

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def main() -> None:
    """Attack pvops from one seed, and keep the ledger of what that has come to."""


@app.command("ledger")
def show(
    *, write: Annotated[bool, typer.Option(help="Also write the table of docs/explanation/reliability.md.")] = False
) -> None:
    """Show what has been counted, and what of it stands: its rooms are as they were."""
    entries, bars = ledger.read(), ledger.bars()
    for line in table.lines(entries, bars):
        sys.stdout.write(f"{line}\n")
    if write:
        write_page()


@app.command()
def record(
    name: Annotated[str, typer.Argument(help="Of the bar; one of bars.toml or a new one.")],
    count: Annotated[int, typer.Argument(min=0, help="How many.")],
    unit: Annotated[str, typer.Option(help="Of what; the bar's if not given.")] = "",
    rooms: Annotated[str, typer.Option(metavar="ROOM,…", help="What was exercised; the bar's if not given.")] = "",
    seed: Annotated[int, typer.Option(help="That the run began from.")] = 0,
    result: Annotated[str, typer.Option(help="What was found wrong.")] = ledger.SOUND,
) -> None:
    """Add a count to the ledger, of the tree as it is, and write the page's table."""
    of = tuple(filter(None, rooms.split(",")))
    try:
        entry = ledger.add(name, count, unit=unit, of=of, seed=seed, result=result)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    write_page()
    sys.stdout.write(f"{entry.name}: {entry.count} {entry.unit} at {entry.commit}, {entry.result}\n")


def write_page() -> None:
    """The page with the table of today's ledger."""
    made = table.written(table.PAGE.read_text(encoding="utf-8"), table.page_table(ledger.read(), ledger.bars()))
    table.PAGE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    app(prog_name="python -m soak")
