"""The implementations of hooks that an ops class has."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import attrs

from pvops_core import hookspecs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.backends.backend import Backend

_IMPL = f"{hookspecs.PROJECT}_impl"


@attrs.frozen
class Marked:
    """An attribute of an ops class that is marked as an implementation.

    Attributes:
        attribute: its name in the class.
        hook: the hook that it implements.
        value: as found in the class, a staticmethod or classmethod as such.
        options: what it was marked with.
    """

    attribute: str
    hook: str
    value: object
    options: Mapping[str, Any]


def marked(ops: type) -> list[Marked]:
    """The implementations of an ops class, those it inherits among them."""
    found = []
    for attribute in dir(ops):
        value = inspect.getattr_static(ops, attribute)
        function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
        options = getattr(function, _IMPL, None) if not isinstance(function, type) else None
        if isinstance(options, dict):
            found.append(Marked(attribute, options.get("specname") or attribute, value, options))
    return found


def implemented(backend: Backend) -> frozenset[str]:
    """Names of the hooks that a backend implements itself."""
    return frozenset(one.hook for one in marked(backend.ops)) if backend.ops else frozenset()
