"""``pvops new-backend``: a distribution for a backend of one's own, complete from the first minute."""

from __future__ import annotations

import keyword
import re
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pvops_core.cli import template
from pvops_core.cli.common import STDOUT, ExitCode, JsonOption, require, write_json
from pvops_core.errors import UsageError
from pvops_core.records import JsonRecord
from pvops_core.runs.plan import choose

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PARTS: Final = ("platform", "patchlets")
NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


class NewBackend(JsonRecord, frozen=True):
    """A new backend that was written.

    Attributes:
        name: Its name.
        base: The backend that has all other ops.
        directory: Folder that it was written to.
        files: Files written, or changed by an update; below the folder.
        conflicts: Files where an update and the author changed the same lines.
    """

    name: str
    base: str
    directory: str
    files: tuple[str, ...]
    conflicts: tuple[str, ...] = ()


def new_backend(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of the backend: lower-case letters, digits and single underscores."),
    ],
    *,
    directory: Annotated[
        Path | None, typer.Option("--directory", metavar="DIR", help="Folder to make it in; pvops-NAME if not given.")
    ] = None,
    base: Annotated[
        str, typer.Option("--base", metavar="NAME", help="Backend that has all ops which this one lacks.")
    ] = "native",
    description: Annotated[str, typer.Option("--description", metavar="TEXT", help="One line on what it is.")] = "",
    parts: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="A,B",
            help="Begin with these parts too: platform (hypercalls and traps of its own), patchlets (code in place of "
            "calls).",
        ),
    ] = "",
    update: Annotated[
        bool, typer.Option("--update", help="Bring one that was made before up to the newest template, edits kept.")
    ] = False,
    json: JsonOption = None,
) -> int:
    """Write a new backend to begin from.

    It is a whole distribution: packaging, one op, its tests, a README and a CI job; with --with a platform of its own
    and patchlets too. What to do next is printed.

    Exit code: 0 written, 2 no name for a backend, or the folder is in use, 5 an update left conflicts in files.
    """
    for what, given in (("name", name), ("base", base)):
        if not NAME.fullmatch(given) or keyword.iskeyword(given) or len(given) > 40:
            raise UsageError(
                f"{given!r} cannot be the {what} of a backend: a lower-case letter, then lower-case letters, digits, "
                "single underscores"
            )
    if not description.isprintable() or any(letter in description for letter in '"\\'):
        raise UsageError("a description has neither quotes nor backslashes, and is one line")
    chosen = choose("part", [part.strip() for part in parts.split(",") if part.strip()], list(PARTS)) if parts else ()
    if "platform" in chosen and base != "native":
        raise UsageError(
            f"a platform of its own stands on bare metal: --with platform goes with --base native, not {base}"
        )
    folder = directory or Path(f"pvops-{name.replace('_', '-')}")
    if update:
        return _update(folder, name, json)
    _check_new(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already")
    require("report", "jinja2")
    answers = _answers(name, base, description or f"{name}: a paravirtualisation backend", ",".join(chosen))
    written = template.fill_in(folder, answers)
    _tell(NewBackend(name, base, str(folder), tuple(written)), json)
    if json != STDOUT:
        sys.stdout.write("\nNext:\n" + "".join(f"  {step}\n" for step in _next(shlex.quote(str(folder)), name, base)))
    return ExitCode.FINE


def _check_new(name: str) -> None:
    """Two backends of one name cannot be told apart, and some names mean something else."""
    from pvops_core.backends.finding.discovery import discover  # noqa: PLC0415 - other verbs do without
    from pvops_core.backends.loading.checking import RESERVED  # noqa: PLC0415 - heavy

    if name in RESERVED:
        raise UsageError(f"{name!r} cannot be the name of a backend: {RESERVED[name]}")
    there = next((found for found in discover() if found.name == name), None)
    if there is not None:
        raise UsageError(f"there is a backend {name!r} already, of {there.distribution}; give yours another name")


def _update(folder: Path, name: str, json: str | None) -> int:
    made_of = template.answers_of(folder)
    if made_of.get("name") != name:
        raise UsageError(f"{folder} is the backend {made_of.get('name')!r}, not {name!r}")
    changed, conflicts = template.update(folder)
    base = made_of.get("base", "")
    _tell(NewBackend(name, base, str(folder), tuple(changed), tuple(conflicts)), json)
    for file in conflicts:
        sys.stderr.write(f"pvops: {folder / file}: both you and the template changed the same lines\n")
    return ExitCode.DIFFERENCE if conflicts else ExitCode.FINE


def _tell(result: NewBackend, json: str | None) -> None:
    write_json("new-backend", result, json)
    if json != STDOUT:
        sys.stdout.write("".join(f"{Path(result.directory, file)}\n" for file in result.files))


def _next(folder: str, name: str, base: str) -> Iterator[str]:
    """Commands to try it by, as a shell here finds them."""
    pvops = "pvops" if _found("pvops") else f"{shlex.quote(sys.executable)} -m pvops_core"
    python = "python" if _found("python") else shlex.quote(sys.executable)
    yield f"{pvops} run --backend {name} --plugin {folder}"
    yield f"{pvops} compare --backends {base},{name} --plugin {folder}"
    if find_spec("pytest") is None:
        yield f"{python} -m pip install pytest"
    yield f"(cd {folder} && {python} -m pytest)"
    yield f"(cd {folder} && {python} -m pytest --pyargs pvops_core.testing.conformance --pvops-smoke)"


def _found(command: str) -> bool:
    """Whether a shell finds this environment's command, and not another's."""
    found = shutil.which(command)
    return found is not None and Path(found).absolute().parent == Path(sys.executable).parent


def _answers(name: str, base: str, description: str, parts: str) -> Mapping[str, str]:
    return {
        "name": name,
        "distribution": name.replace("_", "-"),
        "camel": "".join(part.capitalize() for part in name.split("_")),
        "base": base,
        "description": description,
        "parts": parts,
    }
