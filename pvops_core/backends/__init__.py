"""What a backend is, and how backends are found, checked, loaded and kept apart: entry points of ``pvops.backends``.

Finding them takes a fraction of what loading them takes, so each name is imported when it is first used.
"""

from typing import TYPE_CHECKING

from pvops_core.lazily import lazily

if TYPE_CHECKING:
    from pvops_core.backends.backend import API, OLDEST_API, Backend, Environment, Switch
    from pvops_core.backends.chains import chain
    from pvops_core.backends.finding.discovery import GROUP, Found, discover
    from pvops_core.backends.hooks import implemented
    from pvops_core.backends.hypercalls import hypercall
    from pvops_core.backends.loading.loader import Loaded, load_backends
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
    "hypercall",
    "implemented",
    "load_backends",
    "setting",
]

_HOMES = {
    "API": "backend",
    "OLDEST_API": "backend",
    "Backend": "backend",
    "Environment": "backend",
    "Switch": "backend",
    "chain": "chains",
    "GROUP": "finding.discovery",
    "Found": "finding.found",
    "discover": "finding.discovery",
    "implemented": "hooks",
    "Loaded": "loading.loader",
    "load_backends": "loading.loader",
    "HypercallMade": "platform",
    "hypercall": "hypercalls",
    "Platform": "platform",
    "Settings": "settings",
    "clock_start": "settings",
    "cpu_model": "settings",
    "setting": "settings",
    "KernelFill": "pvops_core.patching.fills",
    "OwnFunction": "pvops_core.guest.own",
}


__getattr__ = lazily(__name__, _HOMES)
