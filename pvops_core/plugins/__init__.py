"""Finds, checks, loads and isolates backends: the entry points of group ``pvops.backends``.

Finding them takes a fraction of what loading them takes, so each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pvops_core.plugins.chains import chain
    from pvops_core.plugins.discovery import GROUP, Found, discover
    from pvops_core.plugins.hooks import implemented
    from pvops_core.plugins.loading import Loaded, load_backends

__all__ = ["GROUP", "Found", "Loaded", "chain", "discover", "implemented", "load_backends"]

_HOMES = {
    "GROUP": "discovery",
    "Found": "discovery",
    "Loaded": "loading",
    "chain": "chains",
    "discover": "discovery",
    "implemented": "hooks",
    "load_backends": "loading",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
