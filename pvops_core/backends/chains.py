"""Backends on backends: whose ops stand where one has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pvops_core.backends.backend import Backend
    from pvops_core.backends.finding.found import Found
    from pvops_core.errors import PluginError


def chain(backend: Backend, backends: Mapping[str, Backend]) -> tuple[Backend, ...]:
    """The backend, its base, its base's base and so on.

    Args:
        backend: the first.
        backends: all that were loaded.

    Raises:
        UsageError: a base is not among them, or leads back.
    """
    found = [backend]
    while (base := found[-1].base) is not None:
        if base not in backends:
            raise UsageError(f"backend {found[-1].name!r} is based on {base!r}, which is not there")
        if any(base == earlier.name for earlier in found):
            raise UsageError(f"backend {backend.name!r} is based on itself: {_path([*found, backends[base]])}")
        found.append(backends[base])
    return tuple(found)


def platform_owner(links: Sequence[Backend]) -> Backend:
    """The backend of a chain whose platform is in force: the first that has one, or the first if none has."""
    return next((link for link in links if link.platform is not None), links[0])


def _path(backends: Sequence[Backend]) -> str:
    return " -> ".join(backend.name for backend in backends)


def check_bases(backends: Mapping[str, Backend], sources: Mapping[str, Found]) -> Iterator[tuple[str, PluginError]]:
    """The backends whose chain of bases does not end well, each with the error that says so."""
    for name, backend in backends.items():
        try:
            links = chain(backend, backends)
        except UsageError as error:
            yield name, sources[name].error(error.message)
            continue
        if all(link.platform is None for link in links):
            yield name, sources[name].error("neither it nor its base has a platform")
