"""Finds, checks, loads and isolates backends: the entry points of group ``pvops.backends``."""

from pvops_core.plugins.chains import chain
from pvops_core.plugins.discovery import GROUP, Found, discover
from pvops_core.plugins.hooks import implemented
from pvops_core.plugins.loading import Loaded, load_backends

__all__ = ["GROUP", "Found", "Loaded", "chain", "discover", "implemented", "load_backends"]
