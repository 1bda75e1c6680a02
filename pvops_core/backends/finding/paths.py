"""Plugins without packaging: what ``--plugin`` and PVOPS_PLUGINS take.

``module:attribute`` (importable), ``file.py`` or ``file.py:attribute``, a package's folder, or a project's folder
with a pyproject.toml that declares entry points. Without an attribute it is ``backend``.
"""

from __future__ import annotations

import glob
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pvops_core.backends.finding.found import Found

if TYPE_CHECKING:
    from collections.abc import Iterator

ATTRIBUTE = "backend"
_MODULE = re.compile(r"^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_][\w.]*$")


def plugins_at(text: str, group: str) -> Iterator[Found]:
    """The plugins that one such text names; at least one, with a problem if there is none."""
    matches = sorted(glob.glob(text)) if glob.has_magic(text) else []  # noqa: PTH207  may be absolute
    for match in matches or [text]:
        yield from _one(match, group)


def folders_of(text: str) -> tuple[str, ...]:
    """Folders that the modules of the project of one such text are in; none of what is no project's folder."""
    path = Path(text).expanduser()
    return tuple(map(str, _folders(path.resolve()))) if (path / "pyproject.toml").is_file() else ()


def _folders(project: Path) -> tuple[Path, ...]:
    return tuple(place for place in (project / "src", project) if place.is_dir())


def _one(text: str, group: str) -> Iterator[Found]:
    place, _, attribute = text.rpartition(":") if text.rpartition(":")[0].endswith(".py") else (text, "", "")
    path = Path(place).expanduser()
    value = f"{path.stem}:{attribute or ATTRIBUTE}"
    if path.is_file() and path.suffix == ".py":
        yield Found("", text, "", value, file=path.resolve())
    elif (path / "pyproject.toml").is_file():
        yield from _project(text, path.resolve(), group)
    elif (path / "__init__.py").is_file():
        yield Found("", text, "", value, file=path.resolve() / "__init__.py")
    elif _MODULE.match(text):
        yield Found("", text, "", text)
    else:
        yield Found("", text, "", "", problem="it is neither a Python file, a package, a project nor module:attribute")


def _project(text: str, folder: Path, group: str) -> Iterator[Found]:
    try:
        document = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        yield Found("", text, "", "", problem=f"its pyproject.toml cannot be read: {error}")
        return
    project = _table(document.get("project"))
    entries = _table(_table(project.get("entry-points")).get(group))
    folders = _folders(folder)
    name, version = str(project.get("name", text)), str(project.get("version", ""))
    if not entries:
        yield Found("", name, version, "", problem=f"its pyproject.toml declares no entry point in group {group}")
    for entry, value in entries.items():
        yield Found(entry, name, version, str(value), folders=folders)


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
