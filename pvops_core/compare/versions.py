"""Versions of everything that a result may depend on."""

from __future__ import annotations

import platform
from importlib import metadata

_DISTRIBUTIONS = ("pvops-core", "unicorn", "capstone")


def versions(*backends: str) -> dict[str, str]:
    """Software name -> version: Python, pvops, the libraries that execute and check code, and ``backends``.

    Args:
        backends: names of the distributions that the backends in use came from.
    """
    found = {"python": platform.python_version()}
    for name in (*_DISTRIBUTIONS, *backends):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # a plugin given by its path
            found[name] = "not installed"
    return found
