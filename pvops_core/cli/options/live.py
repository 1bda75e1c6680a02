"""What ``pvops boot`` does about live patches: a script of timed commands, a socket for a running machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pvops_core.cli.common import read_file
from pvops_core.livepatch.control.orders import PatchOrders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvops_core.livepatch.control.findings import LivePatched

ScriptOption = Annotated[
    str | None,
    typer.Option(
        metavar="SCRIPT",
        help="Live-patch the kernel while it runs, by a file of timed commands as for `pvops livepatch run`.",
    ),
]
SocketOption = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Listen at this socket for `pvops livepatch list`, `apply` and its kin."),
]


def patching(script: str | None, socket: Path | None) -> PatchOrders:
    """What the options ask for.

    Raises:
        UsageError: the script cannot be read, or a line of it is no command; the message names the line.
    """
    text = ""
    if script is not None:
        from pvops_core.livepatch.control.script import read_script  # noqa: PLC0415 - seldom wanted

        text = read_file(script).decode("utf-8", "replace")
        read_script(text, script)
    return PatchOrders(text, script or "", str(socket.absolute()) if socket else "")


def lines(found: LivePatched) -> Iterator[str]:
    """What is told of it at the end of a run."""
    for each in found.payloads or ():
        result = f" ({each.rc})" if each.rc else ""
        yield f"{'payload':<20}{each.name} {each.state}{result}"
    for message in found.messages or ():
        yield f"{'log':<20}{message}"
    for line in found.not_done or ():
        yield f"{'not done':<20}{line}"
