"""What a sound backend declares without effect, or hides: told to its author, who may mean it."""

from __future__ import annotations

import inspect
from functools import cached_property, partialmethod
from typing import TYPE_CHECKING, Final

from pvops_core.backends.hooks import implemented
from pvops_core.hookspecs.specs import specs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvops_core.backends.backend import Backend
    from pvops_core.backends.finding.found import Found
    from pvops_core.errors import PluginError

_METHODS: Final = (property, cached_property, partialmethod, classmethod, staticmethod)
"""What a method may be in its class without being callable there."""


def notes_on(found: Found, backend: Backend) -> Iterator[PluginError]:
    """One note for each hook concerned, in the order of their names; before them, that an installed copy is left out.

    Args:
        found: the plugin, for the notes.
        backend: what it declares, checked.
    """
    if found.instead:
        yield found.error(f"it is used from where it was given, in place of the installed {found.instead}")
    hooks = implemented(backend)
    for name in sorted(specs().keys() - hooks):
        found_there = inspect.getattr_static(backend.ops, name, None)
        if isinstance(found_there, _METHODS) or callable(found_there):
            message = "its ops have a method of this name that is not marked @hookimpl, so it is never called as the op"
            yield found.error(message, name)
    for op in sorted({patchlet.op for patchlet in backend.patchlets} - hooks - backend.nops - backend.empty):
        message = "it has a patchlet for it, but not the op: a patchlet stands for its own backend's op and no other"
        yield found.error(message, op)
