"""``python -m soak``."""

from __future__ import annotations

import math
import sys
from typing import Annotated

import typer

from pvops_core.errors import printable
from soak import campaign, ledger, table
from soak.attackers import ATTACKERS

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def main(
    ctx: typer.Context,
    *,
    hours: Annotated[float, typer.Option(min=0, help="How long; after it no round is begun.")] = 0,
    minutes: Annotated[float, typer.Option(min=0, help="The same in minutes; 5 if nothing is said.")] = 0,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="This attacker; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of each attacker's first round; the next has the next.")] = 0,
    rounds: Annotated[int, typer.Option(min=0, help="Of each attacker, instead of a time.")] = 0,
    record: Annotated[bool, typer.Option("--record", help="Add what was done to the ledger.")] = False,
) -> None:
    """Attack pvops, each attacker from one seed, in turn; the ledger keeps what that has come to.

    A round that finds something prints the line that makes it again. Exit code 1 if any did.
    """
    if ctx.invoked_subcommand is not None:
        return
    if unknown := set(only or ()) - ATTACKERS.keys():
        names = "\n".join(f"  {name}: {what}" for name, what in ATTACKERS.items())
        raise typer.BadParameter(f"no attacker {', '.join(sorted(unknown))}; there are\n{names}")
    seconds = hours * 3600 + minutes * 60 or (0 if rounds else 300)
    chosen = list(only or ATTACKERS)
    before = campaign.keys(chosen) if record else {}
    attacks = campaign.campaign(chosen, seed, seconds=seconds, most=rounds)
    for each in attacks:
        done = each.tally.skipped or f"{each.tally.count:,} in {each.rounds} rounds, {each.spent_s:.0f} s"
        sys.stdout.write(f"{each.name}: {done}, {len(each.tally.wrong)} wrong\n")
    if record:
        campaign.enter(attacks, seed, before)
        write_page()
    raise typer.Exit(int(any(each.tally.wrong for each in attacks)))


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
def study(
    *,
    cells: Annotated[int, typer.Option(min=2, help="Of the study.")] = 1000,
    kills: Annotated[int, typer.Option(min=0, help="How many processes are killed.")] = 200,
    minutes: Annotated[float, typer.Option(min=0, help="After these nobody is killed any more.")] = math.inf,
    seed: Annotated[int, typer.Option(min=0, help="Of who is killed when.")] = 0,
    record: Annotated[bool, typer.Option("--record", help="Add what was done to the ledger.")] = False,
) -> None:
    """Attack one large study on a cluster, as the attacker ``studies`` does small ones."""
    from soak.killing.campaign import attack  # noqa: PLC0415 - needs the cluster's library

    of = campaign.Attack("studies", seed)
    before = campaign.keys([of.name]) if record else {}
    of.tally = attack(seed, cells, kills, minutes=minutes, tell=typer.echo)
    for each in of.tally.wrong:
        sys.stdout.write(f"  {printable(each)}\n")
    sys.stdout.write(f"{of.tally.count} killed {dict(of.tally.notes)}, {len(of.tally.wrong)} wrong\n")
    if record:
        campaign.enter([of], seed, before)
        write_page()
    raise typer.Exit(int(bool(of.tally.wrong)))


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
