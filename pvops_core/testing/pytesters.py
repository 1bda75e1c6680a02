"""Tests that run pytest in their own process, by pytest's fixture ``pytester``.

Such a run forgets, when it ends, every module that was first imported in it. Of ours a part would be there twice from
then on, with two classes of each name, and of numpy nothing: it can be imported but once. So all is imported before.
"""

from __future__ import annotations

import importlib
import pkgutil
from contextlib import suppress
from typing import Final

import pvops_core

_OF_COMMANDS: Final = ("__main__", "api1", "cli", "compare", "study")
"""What no test of a hook imports."""


def import_all() -> None:
    """Import what a run of pytest may import of ours."""
    for module in pkgutil.walk_packages(pvops_core.__path__, "pvops_core."):
        if module.name.split(".")[1] not in _OF_COMMANDS and not module.name.endswith("__main__"):
            with suppress(ModuleNotFoundError):  # a library of an extra that is not installed
                importlib.import_module(module.name)
