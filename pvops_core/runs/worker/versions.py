"""Versions of everything that a result may depend on."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata

_DISTRIBUTIONS = ("pvops-core", "unicorn", "capstone")


def versions(plugins: Mapping[str, str]) -> dict[str, str]:
    """Software name -> version: Python, pvops, the libraries that execute and check code, and the plugins.

    Args:
        plugins: distribution -> version of the backends in use, empty for one that has none.
    """
    libraries = {name: metadata.version(name) for name in _DISTRIBUTIONS}
    own = {name: version or "unpackaged" for name, version in plugins.items()}
    return {"python": platform.python_version()} | libraries | own
