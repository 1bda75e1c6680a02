"""The verbs of ``pvops livepatch`` that work on a running machine, by the socket of ``pvops boot``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Annotated

import typer

from pvops_core.cli.common import STDOUT, ExitCode, JsonOption, progress, read_file, write_json
from pvops_core.errors import printable

SOCKET_VARIABLE = "PVOPS_LIVEPATCH_SOCKET"
SocketOption = Annotated[
    Path,
    typer.Option("--socket", metavar="PATH", envvar=SOCKET_VARIABLE, help="Socket that the machine listens at."),
]
NameArgument = Annotated[str, typer.Argument(help="Name of the payload.")]
FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="The payload's file.")]
NodepsOption = Annotated[bool, typer.Option("--nodeps", help="Do not look at what the payload depends on.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Do not compare build-ids with the guest's.")]
EXIT = "Exit code: 0 done, 1 it failed, 2 it should be tried again (EAGAIN, EBUSY), 3 no machine answers."


def upload(
    name: NameArgument, file: FileArgument, socket: SocketOption, *, force: ForceOption = False, json: JsonOption = None
) -> int:
    """Give a payload to a running machine."""
    return _ask(socket, json, ["upload", name, file], file, force=force)


def show_all(socket: SocketOption, *, json: JsonOption = None) -> int:
    """List the payloads of a running machine."""
    return _ask(socket, json, ["list"])


def get(name: NameArgument, socket: SocketOption, *, json: JsonOption = None) -> int:
    """Tell a payload's state, and its last result."""
    return _ask(socket, json, ["get", name])


def apply(name: NameArgument, socket: SocketOption, *, nodeps: NodepsOption = False, json: JsonOption = None) -> int:
    """Put a payload into force."""
    return _ask(socket, json, ["apply", name], nodeps=nodeps)


def revert(name: NameArgument, socket: SocketOption, *, json: JsonOption = None) -> int:
    """Take the last payload that was applied back."""
    return _ask(socket, json, ["revert", name])


def replace(name: NameArgument, socket: SocketOption, *, json: JsonOption = None) -> int:
    """Revert all payloads and apply one, at once."""
    return _ask(socket, json, ["replace", name])


def unload(name: NameArgument, socket: SocketOption, *, json: JsonOption = None) -> int:
    """Remove a payload that is not applied."""
    return _ask(socket, json, ["unload", name])


def load(
    file: FileArgument,
    socket: SocketOption,
    *,
    nodeps: NodepsOption = False,
    force: ForceOption = False,
    json: JsonOption = None,
) -> int:
    """Upload under the file's own name, and apply."""
    return _ask(socket, json, ["load", file], file, nodeps=nodeps, force=force)


VERBS: dict[str, Callable[..., int]] = {
    **{verb.__name__: verb for verb in (upload, get, apply, revert, replace, unload, load)},
    "list": show_all,
}


def add_to(group: typer.Typer) -> None:
    """Make these verbs commands of a group."""
    for name, verb in VERBS.items():
        verb.__doc__ = f"{verb.__doc__}\n\n{EXIT}"
        group.command(name)(verb)


def _ask(socket: Path, json: str | None, words: list[str], *files: str, **options: bool) -> int:
    from pvops_core.livepatch.control.client import NoAnswerError, ask  # noqa: PLC0415 - heavy
    from pvops_core.livepatch.control.findings import VerbResult  # noqa: PLC0415

    flags = [f"--{name}" for name, wanted in options.items() if wanted]
    contents = {name: read_file(name) for name in files}
    try:
        with progress(f"{words[0]} {PurePath(words[1]).name if words[1:] else ''}".strip()):
            reply = ask(socket, [*words, *flags], contents)
    except NoAnswerError as error:
        sys.stderr.write(f"pvops: {printable(str(error))}\n")
        return ExitCode.NOTHING
    text = sys.stderr if json == STDOUT else sys.stdout
    for line in reply.lines or ():
        text.write(f"{printable(line)}\n")
    if reply.error:
        sys.stderr.write(f"pvops: {printable(reply.error)}\n")
    write_json("livepatch", VerbResult(" ".join([*words, *flags]), reply), json)
    return reply.exit
