"""What a backend is, and how backends are found, checked, loaded and kept apart: entry points of ``pvops.backends``.

Finding them takes a fraction of what loading them takes, so each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pvops_core.backends.backend import API, OLDEST_API, Backend, Environment, Switch
    from pvops_core.backends.chains import chain
    from pvops_core.backends.discovery import GROUP, Found, discover
    from pvops_core.backends.hooks import implemented
    from pvops_core.backends.loading import Loaded, load_backends
    from pvops_core.backends.platform import HypercallMade, Platform
    from pvops_core.backends.settings import Settings, clock_start, cpu_model, setting
    from pvops_core.guest.own import OwnFunction
    from pvops_core.patching.fills import KernelFill

__all__ = [
    "API",
    "GROUP",
    "OLDEST_API",
    "Backend",
    "Environment",
    "Found",
    "HypercallMade",
    "KernelFill",
    "Loaded",
    "OwnFunction",
    "Platform",
    "Settings",
    "Switch",
    "chain",
    "clock_start",
    "cpu_model",
    "discover",
    "implemented",
    "load_backends",
    "setting",
]

_HOMES = {
    "API": "backends.backend",
    "OLDEST_API": "backends.backend",
    "Backend": "backends.backend",
    "Environment": "backends.backend",
    "Switch": "backends.backend",
    "chain": "backends.chains",
    "GROUP": "backends.discovery",
    "Found": "backends.discovery",
    "discover": "backends.discovery",
    "implemented": "backends.hooks",
    "Loaded": "backends.loading",
    "load_backends": "backends.loading",
    "HypercallMade": "backends.platform",
    "Platform": "backends.platform",
    "Settings": "backends.settings",
    "clock_start": "backends.settings",
    "cpu_model": "backends.settings",
    "setting": "backends.settings",
    "KernelFill": "patching.fills",
    "OwnFunction": "guest.own",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"pvops_core.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
