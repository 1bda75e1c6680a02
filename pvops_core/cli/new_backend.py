"""``pvops new-backend``: a distribution for a backend of one's own, complete from the first minute."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pvops_core.cli.common import ExitCode, JsonOption, write_json
from pvops_core.errors import UsageError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
SUFFIX: Final = ".jinja"


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
    json: JsonOption = None,
) -> int:
    """Write a new backend to begin from.

    It is a whole distribution: packaging, one op, its tests, a README and a CI job.

    Exit code: 0 written, 2 no name for a backend, or the folder is in use.
    """
    for what, given in (("name", name), ("base", base)):
        if not NAME.fullmatch(given) or keyword.iskeyword(given) or len(given) > 40:
            raise UsageError(
                f"{given!r} cannot be the {what} of a backend: a letter, then letters, digits, underscores"
            )
    if not description.isprintable() or any(letter in description for letter in '"\\'):
        raise UsageError("a description has neither quotes nor backslashes, and is one line")
    folder = directory or Path(f"pvops-{name.replace('_', '-')}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already")
    answers = _answers(name, base, description or f"{name}: a paravirtualisation backend")
    written = _write(folder, answers)
    write_json("new-backend", {"name": name, "base": base, "directory": str(folder), "files": written}, json)
    if json is None:
        sys.stdout.write("".join(f"{folder / file}\n" for file in written))
    return ExitCode.FINE


def _answers(name: str, base: str, description: str) -> Mapping[str, str]:
    from importlib.metadata import version  # noqa: PLC0415 - only this verb needs it

    major, minor, *_ = version("pvops-core").split(".")
    return {
        "name": name,
        "distribution": name.replace("_", "-"),
        "camel": "".join(part.capitalize() for part in name.split("_")),
        "base": base,
        "description": description,
        "core": f"{major}.{minor}",
        "next": f"{major}.{int(minor) + 1}",
        "dot": ".",  # packaging leaves out files whose names begin with one
    }


def _write(folder: Path, answers: Mapping[str, str]) -> list[str]:
    """Write the template's files, names filled in as well as contents; their paths below the folder."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - only this verb needs it

    engine = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701 - no HTML
    template = resources.files("pvops_core.cli").joinpath("templates", "backend")
    made = {}
    for path, file in sorted(_files(template, ()), key=lambda found: found[0]):
        target = engine.from_string("/".join(path)).render(answers).removesuffix(SUFFIX)
        made[target] = engine.from_string(file.read_text(encoding="utf-8")).render(answers)
    try:
        for target, text in made.items():
            place = folder / target
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from error
    return list(made)


def _files(folder: Traversable, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Traversable]]:
    found = []
    for entry in folder.iterdir():
        below = (*path, entry.name)
        found += _files(entry, below) if entry.is_dir() else [(below, entry)]
    return found
