"""Which plugins there are, learnt from metadata alone: nothing is imported here."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from importlib import metadata
from typing import TYPE_CHECKING, Any

import attrs

from pvops_core.backends.finding import paths
from pvops_core.backends.finding.found import Found

if TYPE_CHECKING:
    from pvops_core.errors import PluginError

GROUP = "pvops.backends"
"""The entry-point group of backends."""

MORE = "PVOPS_PLUGINS"
"""Environment variable: more plugins, as ``--plugin`` takes them, parted by commas; paths may be globs."""

FEWER = "PVOPS_DISABLE_PLUGINS"
"""Environment variable: globs, parted by commas, of entry-point or distribution names to leave out."""

__all__ = ["FEWER", "GROUP", "MORE", "Found", "discover"]


def discover(plugins: Iterable[str] = (), environ: Mapping[str, str] | None = None) -> list[Found]:
    """List the plugins there are, without importing any.

    Args:
        plugins: what was given with ``--plugin``.
        environ: the environment; None for the process's own.

    Returns:
        Installed ones by name, then those given. One whose metadata cannot be read has a ``problem``. A project that is
        given stands in for the installed distribution of its name, which is left out.
    """
    environ = os.environ if environ is None else environ
    fewer = _words(environ.get(FEWER, ""))
    installed = sorted(_installed(), key=_order)
    of_environment = [one for text in _words(environ.get(MORE, "")) for one in paths.plugins_at(text, GROUP)]
    there = [one for one in (*installed, *of_environment) if not _switched_off(one, fewer)]
    given = [one for text in plugins for one in paths.plugins_at(text, GROUP)]
    return _instead(installed, dict.fromkeys((*there, *given)))


def _instead(installed: Iterable[Found], found: Iterable[Found]) -> list[Found]:
    """Working copies in place of the distributions of their names, which else had the names of their backends."""
    versions = {_normal(one.distribution): one.version for one in installed}
    copies = {_normal(one.distribution) for one in found if one.folders}
    return [
        attrs.evolve(one, instead=versions.get(_normal(one.distribution), "")) if one.folders else one
        for one in found
        if one.folders or one.file or _normal(one.distribution) not in copies
    ]


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _switched_off(found: Found, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs for name in (found.name, found.distribution) if name)


def _order(found: Found) -> tuple[str, bool, str]:
    """By name; among claimants of one name the distribution that is called after it comes first, and so wins."""
    return found.name, _normal(found.distribution) != f"pvops-{_normal(found.name)}", found.distribution


def _normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed() -> Iterator[Found]:
    seen: set[str] = set()
    for distribution in metadata.distributions():
        folder = _folder(distribution)
        if _left_over(distribution):
            continue
        name = _normal(folder.partition("-")[0])
        if name in seen:
            # A second copy further down sys.path, which import would not see either.
            continue
        seen.add(name)
        try:
            yield from _plugins(distribution)
        except Exception as error:  # noqa: BLE001  whatever reading somebody's files raises is that plugin's problem
            problem = f"its metadata cannot be read: {type(error).__name__}: {error}"
            yield Found("", folder, "", "", problem=problem)


def _plugins(distribution: metadata.Distribution) -> Iterator[Found]:
    """Its plugins. Of a distribution without any no more is read than tells that: there may be hundreds."""
    if GROUP not in (distribution.read_text("entry_points.txt") or ""):
        return
    fields = _fields(distribution)
    name, version = fields.get("name") or _folder(distribution), fields.get("version") or ""
    for entry in distribution.entry_points.select(group=GROUP):
        yield Found(entry.name, str(name), str(version), entry.value)


def _fields(distribution: metadata.Distribution) -> Mapping[str, Any]:
    """Its metadata, keys in lower case; none of one that has lost the file."""
    # Once somebody imports the package importlib_metadata, as dask does, all distributions are found by that: where
    # Python gives a message without fields, it raises.
    with contextlib.suppress(FileNotFoundError):
        return distribution.metadata.json
    return {}


def _left_over(distribution: metadata.Distribution) -> bool:
    """An empty folder that an upgrade left behind; the distribution's own is further on."""
    path = getattr(distribution, "_path", None)
    if path is None or not os.path.isdir(str(path)):  # noqa: PTH112  there may be hundreds
        return False
    return not any((path / name).exists() for name in ("METADATA", "PKG-INFO", "entry_points.txt"))


def _folder(distribution: metadata.Distribution) -> str:
    """The folder of its metadata, which begins with its name."""
    path = getattr(distribution, "_path", None)
    return str(distribution.metadata["Name"]) if path is None else os.path.basename(str(path))  # noqa: PTH119  text only


def broken(found: Found) -> PluginError:
    """The error for a plugin with a problem."""
    return attrs.evolve(found.error(), message=found.problem)
