"""What a process of pytest's need not do for pvops: it costs more than a saved boot."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class PlainModules:
    """Finds pvops' own modules, which hold no tests, before pytest does.

    It rewrites the assertions of all modules of a distribution that has a plugin, each time it imports one: a third of
    a millisecond each, and of pvops some 250.
    """

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /) -> ModuleSpec | None:
        """One of pvops' own; None for the suites and helpers of tests, and for all others."""
        own, tests = fullname.startswith("pvops_core."), fullname.startswith("pvops_core.testing.")
        return PathFinder.find_spec(fullname, path, target) if own and not tests else None

    @classmethod
    def install(cls) -> None:
        """Find them from now on."""
        if cls not in sys.meta_path:
            sys.meta_path.insert(0, cls)

    @classmethod
    def remove(cls) -> None:
        """Leave them to others again."""
        if cls in sys.meta_path:
            sys.meta_path.remove(cls)


@contextmanager
def lasting() -> Iterator[None]:
    """Look for no garbage while something is made that lasts, nor later on in what was made.

    Importing, and making a session, make a hundred thousand objects and no garbage; pytest goes through all of them
    when it ends. What was garbage before is taken away first, so nobody misses what would have been told of it.
    """
    there = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if there:
            gc.enable()
