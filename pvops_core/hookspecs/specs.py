"""The hook specs as data."""

from __future__ import annotations

import inspect
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from pvops_core import hookspecs

if TYPE_CHECKING:
    from collections.abc import Mapping

_MARK = f"{hookspecs.PROJECT}_spec"


@attrs.frozen
class Spec:
    """A hook spec.

    Attributes:
        name: the hook.
        arguments: names of its arguments: ``cpu`` (``ctx`` for ``patch``) first, none for a value.
        group: module it is in, without the package.
        signature: the Python signature as text.
        doc: its docstring.
        deprecations: what is said of it and of its arguments to those who still use them.
    """

    name: str
    arguments: tuple[str, ...]
    group: str
    signature: str
    doc: str
    deprecations: tuple[str, ...] = ()


@cache
def specs() -> Mapping[str, Spec]:
    """All hook specs by name, module by module in the order of the source."""
    found = {}
    for module in hookspecs.MODULES:
        for name, function in vars(module).items():
            options = getattr(function, _MARK, None)
            if options is not None:
                signature = inspect.signature(function)
                text = f"{name}{signature}".replace("'", "")
                doc = inspect.getdoc(function) or ""
                group = module.__name__.rpartition(".")[2]
                found[name] = Spec(name, tuple(signature.parameters), group, text, doc, _deprecations(options))
    return MappingProxyType(found)


def _deprecations(options: Mapping[str, Any]) -> tuple[str, ...]:
    given = [options["warn_on_impl"], *(options["warn_on_impl_args"] or {}).values()]
    return tuple(str(warning) for warning in given if warning is not None)
