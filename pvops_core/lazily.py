"""Names that come from modules which are imported when one of them is first used."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class _Later(ModuleType):
    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module has
        value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)
        return value


def later(name: str) -> Any:  # noqa: ANN401 - who uses it imports the module for the type checker
    """What stands for a module until something of it is asked for."""
    return _Later(name)


def lazily(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """What a package is to have as ``__getattr__``.

    Args:
        package: its ``__name__``.
        homes: each name to the module below the package that has it; one that begins with ``pvops_core`` is elsewhere.
    """

    def get(name: str) -> object:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(home if home.startswith("pvops_core") else f"{package}.{home}")
        value: object = getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return get
