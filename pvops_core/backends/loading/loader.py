"""Imports plugins one by one; those that fail are reported and the others go on."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
from functools import reduce
from typing import TYPE_CHECKING

import attrs

from pvops_core.backends.chains import check_bases
from pvops_core.backends.finding.discovery import broken, discover
from pvops_core.backends.loading.checking import check_backend
from pvops_core.backends.loading.isolation import isolated
from pvops_core.backends.loading.notes import notes_on
from pvops_core.backends.loading.trial import tried
from pvops_core.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path
    from types import ModuleType

    from pvops_core.backends.backend import Backend
    from pvops_core.backends.finding.found import Found

_VALUE = re.compile(r"^(?P<module>[\w.]+)\s*:\s*(?P<attribute>[\w.]+)\s*(?:\[.*\])?\s*$")


@attrs.frozen
class Loaded:
    """What loading came to.

    Attributes:
        backends: the good ones by name.
        sources: where each of them comes from, by name.
        errors: what was wrong with the others.
        notes: what the good ones declare without effect.
    """

    backends: Mapping[str, Backend]
    sources: Mapping[str, Found]
    errors: tuple[PluginError, ...]
    notes: tuple[PluginError, ...] = ()

    @property
    def broken(self) -> tuple[str, ...]:
        """:attr:`Found.key` of those that could not be loaded."""
        return tuple(error.plugin for error in self.errors)


def load_backends(plugins: Iterable[str] = (), environ: Mapping[str, str] | None = None) -> Loaded:
    """Load and check all backends.

    Args:
        plugins: what was given with ``--plugin``.
        environ: the environment; None for the process's own.

    Raises:
        UsageError: a number in the environment is none.
    """
    environ = os.environ if environ is None else environ
    backends: dict[str, Backend] = {}
    sources: dict[str, Found] = {}
    errors: list[PluginError] = []
    there = discover(plugins, environ)
    failed = tried(there, environ)
    for found in there:
        try:
            if found in failed:
                raise failed[found]
            backend = load(found)
            _check_free(found, backend.name, sources)
        except PluginError as problem:
            errors.append(problem)
        else:
            backends[backend.name] = backend
            sources[backend.name] = found
    errors += _drop_baseless(backends, sources)
    notes = (note for name, backend in backends.items() for note in notes_on(sources[name], backend))
    return Loaded(backends, sources, tuple(errors), tuple(notes))


def load_needed(name: str, plugins: Iterable[str] = (), without: Collection[str] = ()) -> Loaded:
    """Load a backend with its bases and, as far as names tell, nothing else: in a child that somebody watches.

    A plugin of which only its import tells the name is imported where none that is known has the name.

    Args:
        name: of the backend.
        plugins: what was given with ``--plugin``.
        without: :attr:`Found.key` of plugins that are known not to load.

    Returns:
        The chain, or what of it there is, with the errors of those that were tried.
    """
    waiting = [found for found in discover(plugins, os.environ) if found.key not in without]
    backends: dict[str, Backend] = {}
    sources: dict[str, Found] = {}
    errors: list[PluginError] = []
    wanted: str | None = name
    while wanted is not None and wanted not in backends:
        named = [found for found in waiting if found.name == wanted]
        if not (tried_next := named or [found for found in waiting if not found.name]):
            break
        found = tried_next[0]
        waiting.remove(found)
        try:
            backend = load(found)
            _check_free(found, backend.name, sources)
        except PluginError as problem:
            errors.append(problem)
            continue
        backends[backend.name], sources[backend.name] = backend, found
        while wanted in backends:
            wanted = backends[wanted].base
    errors += _drop_baseless(backends, sources)
    return Loaded(backends, sources, tuple(errors))


def _drop_baseless(backends: dict[str, Backend], sources: dict[str, Found]) -> list[PluginError]:
    errors: list[PluginError] = []
    # Taking one out may leave others without a base.
    while bad := dict(check_bases(backends, sources)):
        errors += bad.values()
        for name in bad:
            del backends[name], sources[name]
    return errors


def load_chains(names: Collection[str], plugins: Iterable[str] = ()) -> Loaded:
    """Load some backends with their bases, tried in a child as those of :func:`load_backends` are.

    Args:
        names: of the backends. One that is not in the result is not there, or broken.
        plugins: what was given with ``--plugin``.
    """
    plugins = tuple(plugins)
    broken_ones = {found.key for found in tried(discover(plugins, os.environ), os.environ)}
    parts = [load_needed(name, plugins, broken_ones) for name in names]
    backends = {name: each for part in parts for name, each in part.backends.items()}
    sources = {name: each for part in parts for name, each in part.sources.items()}
    return Loaded(backends, sources, tuple(error for part in parts for error in part.errors))


def _check_free(found: Found, name: str, sources: Mapping[str, Found]) -> None:
    if name in sources:
        first = f"{sources[name].distribution} {sources[name].version}".rstrip()
        advice = f"to use this one leave that one out: PVOPS_DISABLE_PLUGINS={sources[name].distribution}"
        raise found.error(f"the name {name!r} is taken by {first}; {advice}")


def load(found: Found) -> Backend:
    """Import one plugin and check what it declares; PluginError says what is wrong with it."""
    declared = load_object(found)
    with isolated(found):
        backend = check_backend(found, declared)
        object.__setattr__(
            backend, "source", found
        )  # the object stays the author's own, as others may have imported it
        return backend


def load_object(found: Found) -> object:
    """Import what somebody else's code declares, unchecked; PluginError where that fails."""
    if found.problem:
        raise broken(found)
    match = _VALUE.match(found.value)
    if match is None:
        raise found.error(f"{found.value!r} is not module:attribute")
    with isolated(found):
        module = _module(found, match["module"])
        try:
            declared: object = reduce(getattr, match["attribute"].split("."), module)
        except AttributeError as error:
            raise found.error(f"module {match['module']} has no {match['attribute']!r}: {error}") from error
    return declared


def _module(found: Found, name: str) -> ModuleType:
    for folder in reversed(found.folders):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    if found.file is None:
        return importlib.import_module(name)
    return _from_file(found.file)


def _from_file(file: Path) -> ModuleType:
    """Import a file under a name of its own, so that it hides no module and none hides it."""
    package = file.name == "__init__.py"
    stem = file.parent.name if package else file.stem
    name = f"pvops_plugin_{stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    places = [str(file.parent)] if package else None
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=places)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python source file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
