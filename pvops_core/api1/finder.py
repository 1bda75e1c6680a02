"""Where modules of API 1 are looked for that are no more; imports nothing before one is asked for."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # type checkers take it for true; typing itself is half of what importing the package would cost
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_HOMES = frozenset({"pvops_core", "pvops_native", "pvops_xen"})
"""Packages that had them."""


class OldModules:
    """Finds the modules of API 1 that are no more."""

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /) -> ModuleSpec | None:
        """A module that gives the new one's names; None for all others."""
        del path, target
        if fullname.partition(".")[0] not in _HOMES:
            return None
        from pvops_core.api1.names import old_module  # noqa: PLC0415 - see above

        return old_module(fullname)


def install() -> None:
    """From now on old modules are found, after all that are really there."""
    if not any(isinstance(finder, OldModules) for finder in sys.meta_path):
        sys.meta_path.append(OldModules())
